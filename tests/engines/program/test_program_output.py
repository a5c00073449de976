"""A program's output without its secrets."""

import logging
import subprocess
from pathlib import Path

import pytest

from agent.engines.program.declaration import secrets_of
from agent.engines.program.state import Output
from agent.log import clean
from agent.redaction import redact

KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
LAST = "q83vEjRWeJA="


def printed(caplog: pytest.LogCaptureFixture, text: str, values: dict[str, str]) -> list[str]:
    output = Output(lambda _finding: None, *secrets_of(values))
    with caplog.at_level(logging.INFO, "program"):
        output.feed(text.encode())
        output.close()
    # As each log does it again.
    return [clean(redact(record.getMessage())) for record in caplog.records]


@pytest.mark.parametrize(("kind", "before"), [("", ""), ("RSA ", "[12:00:01] shop: ")])
def test_a_private_key_over_several_lines_is_shown_in_none(
    caplog: pytest.LogCaptureFixture, kind: str, before: str
) -> None:
    begin, end = f"-----BEGIN {kind}PRIVATE KEY-----", f"-----END {kind}PRIVATE KEY-----"
    rows = [begin, *[KEY] * 5, LAST, end]
    text = "".join(f"{before if row != LAST else ''}{row}\n" for row in rows)
    lines = printed(caplog, f"begins\n{text}goes on\n", {})
    assert lines == ["begins", f"{before}{begin}", "goes on"]


def test_a_private_key_is_taken_out_of_one_line_and_what_is_no_key_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    one = f'{{"key": "{begin}\\n{KEY}\\n{end}", "shop": 1}}'
    lines = printed(caplog, f"{one}\n{begin}{KEY}\n{KEY}\nconnected to the shop\n", {})
    assert not any(KEY in line for line in lines)
    assert lines[0].endswith('"shop": 1}')
    # A key without an end takes no other line with it.
    assert lines[-1] == "connected to the shop"


def test_values_of_all_lengths_and_forms_are_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    values = {"LONG": "ab/cd ef&gh", "SHORT": "pw9", "PIN": "12", "PORT": "80", "MODE": "dev"}
    values["CERT"] = "first line\\nsecond line"
    text = (
        "it is ab/cd ef&gh, ab%2Fcd%20ef%26gh, YWIvY2QgZWYmZ2g=\n"
        "pw9 and 12, not pw99 or 120\nport 80, mode dev\nfirst line\nsecond line\n"
    )
    assert printed(caplog, text, values) == [
        "it is [removed], [removed], [removed]=",
        "[removed] and [removed], not pw99 or 120",
        "port 80, mode dev",
        "[removed]",
        "[removed]",
    ]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (f"const a = 1; // {'x' * 100_000}\nf(1 2); //{' ' * 400}|\n", "SyntaxError: missing )"),
        ("function f(n) { n ? f(n - 1) : fails() }\nf(20)\n", "fails is not defined"),
    ],
    ids=["a bundle with long lines", "a deep stack"],
)
def test_the_last_lines_of_a_node_program_name_its_error(
    tmp_path: Path, source: str, wanted: str
) -> None:
    """Node prints the line of the source before the error, and its stack behind it."""
    (tmp_path / "bot.js").write_text(source)
    ended = subprocess.run(
        ["node", "bot.js"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    output = Output(lambda _finding: None, ())
    output.feed(ended.stderr)
    output.close()
    assert wanted in output.last[-1] and len(" | ".join(output.last)) < 950
