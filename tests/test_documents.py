"""The documents of the top folder lead to files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"`(?:sudo )?((?:\./scripts|scripts|agent|tests|systemd)/[\w./-]+)(?: [^`]*)?`")


def missing(text: str) -> list[str]:
    words = [*LINK.findall(text), *NAMED.findall(text)]
    return [word for word in words if not (ROOT / word.removeprefix("./")).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_leads_to_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert missing(text) == []
    assert LINK.findall(text) or NAMED.findall(text)
