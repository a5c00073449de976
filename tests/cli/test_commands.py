"""Every command does its work through the API and says how it went by its exit status."""

import argparse
import asyncio
import json
import re
import signal
import sys

import pytest

from agent.cli.client import Client
from agent.cli.command import build_parser
from agent.cli.views import _flat
from agent.core.model import ConnectionStatus, InstanceId
from agent.engines.base import Qr
from agent.errors import WaError
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view
from tests.supervise.test_look import answers, serving


async def test_the_life_of_an_instance(house: House, cli: Cli) -> None:
    made = await cli("create", "sales", "--engine", "sandbox", "--set", "scan=manual")
    assert (made.status, made.out) == (0, "sales created\n")
    assert house.supervisor.known[InstanceId("sales")].instance.settings == {"scan": "manual"}
    assert re.search(r"sales +sandbox +QR_REQUIRED +disconnected +yes", (await cli("list")).out)
    for verb in ("disable", "start", "enable", "stop", "restart", "logout"):
        said = await cli(verb, "sales")
        assert (said.status, "it stays disabled" in said.out) == (0, verb == "start"), verb
    shown = await cli("show", "sales")
    assert re.search(r"connection_status +QR_REQUIRED\n +since +\d{4}-", shown.out)
    house.supervisor.known[InstanceId("sales")] = view = make_view("sales")
    view.instance.settings["backend"] = "evo"
    assert (await cli("restart", "sales", "--wait", "0.3")).status == 75, "no new proof came"
    house.supervisor.gate.fleet.name = "b"
    deleted = await cli("delete", "sales")
    assert "on machine b: wa-agent trash restore sales.20260115T103045Z" in deleted.out
    assert "sales.20260115T103045Z" in (await cli("trash", "list")).out
    back = await cli("trash", "restore", "sales.20260115T103045Z")
    assert back.out == "sales is back, enabled\n"
    assert (await cli("trash")).out == "the trash is empty\n"


async def test_json_before_and_after_the_command(house: House, cli: Cli) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    for argv in (("--json", "list"), ("list", "--json")):
        assert [one["id"] for one in (await cli(*argv)).json()] == ["sales"]
    for argv in (
        *(("show", "sales"), ("health", "sales"), ("qr", "sales")),
        *(("key", "list"), ("trash", "list"), ("version",), ("settings", "sales")),
    ):
        (await cli(*argv, "--json")).json()


@pytest.mark.parametrize(
    ("argv", "status", "code"),
    [
        pytest.param(("show", "nobody"), 3, "not_found", id="unknown"),
        pytest.param(("create", "sales", "--engine", "sandbox"), 4, "exists", id="refused"),
        pytest.param(("show", "../x"), 2, "invalid_id", id="foul id"),
        pytest.param(("frobnicate",), 2, "invalid_request", id="unknown command"),
        pytest.param((), 2, "invalid_request", id="no command"),
        pytest.param(("create", "b", "--wait", "-1"), 2, "invalid_request", id="no time"),
        pytest.param(("qr", "sales"), 75, "no_qr", id="no code yet"),
        pytest.param(("qr", "sales", "--watch", "--for=0.1"), 75, "try_later", id="no scan"),
        pytest.param(("send", "sales", "1", "\udcff"), 2, "invalid_request", id="no UTF-8"),
    ],
)
async def test_exit_statuses(
    house: House, cli: Cli, argv: tuple[str, ...], status: int, code: str
) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    house.supervisor.codes.clear()
    said = await cli(*argv)
    assert said.status == status, said
    assert said.err.startswith("wa-agent: cannot ")
    as_json = await cli(*argv, "--json")
    error = json.loads(as_json.err)
    assert set(error) == {"error", "message", "field"}
    assert (as_json.status, error["error"]) == (status, code)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("trash lst", "invalid choice: 'lst'; did you mean list?"),
        ("why sale", "instance sale: there is none of that name; did you mean sales?"),
        ("events --kind nope", "cannot use --kind: it must be one of ack, action"),
        ("create x --engine Bailys", "whaticket, not 'Bailys'; did you mean baileys?"),
        ("why sales --jsn", "--jsn; did you mean --json?; wa-agent why --help tells more"),
        ("config check --yes", "arguments: --yes; wa-agent config check --help tells more"),
        ("config check --config=", "cannot use '' as a path"),
        ("config check --state=~/x", "cannot use '~/x' as a path"),
        ("config check a.toml", "arguments: a.toml; name a file by --config FILE;"),
        ("events -n 5000", "cannot use -n/--limit: it must be at most 1000"),
    ],
)
async def test_a_mistyped_word_is_named_as_it_was_typed(
    house: House, cli: Cli, argv: str, told: str
) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    assert told in (await cli(*argv.split())).err


async def test_without_an_agent_it_says_how_to_start_one(cli: Cli, house: House) -> None:
    said = await cli("list", "--socket", "/nowhere/api.sock")
    assert said.status == 5
    assert "is the agent running? start it with" in said.err
    refused = await cli("list", "--url", "http://127.0.0.1:1")
    why = "(127.0.0.1:1: Connection refused); --url named http://127.0.0.1:1;"
    assert refused.status == 5 and why in refused.err
    with pytest.raises(WaError, match="it is text/html"):  # no agent's answer
        await asyncio.to_thread(Client(sockets=(house.socket_path,)).get, "/")
    for other in (answers("200 OK", "{}"), answers("404 Not Found", '{"error": 404}')):
        async with serving(other) as port:
            assert "no wa-agent" in (await cli("list", "--url", f"http://127.0.0.1:{port}")).err

    async def cut_short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b'{"alive": 1}', b'{"instan'):
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12"
            writer.write(head + b"\r\n\r\n" + answer)

    async with serving(cut_short) as port:
        cut = await cli("list", "--url", f"http://127.0.0.1:{port}")
    assert (cut.status, "what was asked for may be done" in cut.err) == (5, True)
    for wrong in ("ftp://x", "http://[::1", "http://a:b", "http://a b", "http://a/?token=T"):
        assert (await cli("list", "--url", wrong)).status == 2


async def test_a_url_needs_a_key(cli: Cli, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await cli("key", "add", "x", "--scope", "read")).out.strip()
    assert (await cli("list", "--url", house.url)).status == 4
    assert (await cli("list", "--url", house.url, "--key", token)).status == 0
    monkeypatch.setenv("WA_AGENT_URL", house.url)
    assert (await cli("list")).err.endswith(f"WA_AGENT_KEY; WA_AGENT_URL named {house.url}\n")
    monkeypatch.setenv("WA_AGENT_KEY", token)
    assert (await cli("list")).status == 0
    assert (await cli("key", "list")).status == 4
    socket = ("--socket", str(house.socket_path))
    assert (await cli("key", "list", *socket)).status == 4, "a sent key decides on the socket too"
    monkeypatch.delenv("WA_AGENT_KEY")
    listed = await cli("key", "list", *socket)
    assert token not in listed.out
    key_id = listed.out.splitlines()[1].split()[0]
    added = await cli("key", "add", "x", "--scope", "instance:nobody", *socket)
    assert "instance:nobody opens nothing yet" in added.err
    named = (("my x", "list shows"), ("x", f"names {key_id}, "), (key_id, ""), ("x", ""))
    for word, said in named:
        done = await cli("key", "revoke", word, *socket)
        assert (said in done.err, done.status == 0) == (True, not said), "one of two, then the last"


async def test_a_key_that_is_none_is_named_and_not_shown(cli: Cli) -> None:
    for words in (("list", "--key"), ("send", "a", "1", "x", "--idempotency-key")):
        said = await cli(*words, "S-1\nx")
        assert (said.status, "S-1" in said.err) == (2, False)
        assert said.err.startswith("wa-agent: cannot ask the agent: a key (WA_AGENT_KEY, --key")
    wrong = await cli("list", "--key", "S-1")
    assert (wrong.status, "WA_AGENT_KEY" in wrong.err, "S-1" in wrong.err) == (4, True, False)


async def test_what_no_one_saw_is_undone_or_told_as_done(house: House) -> None:
    for words, place, told in (
        ("key add shop --scope read", ">&-", b"no one saw is revoked"),
        ("create sales --engine sandbox", "> /dev/full", b"wa-agent: sales created\n"),
    ):
        line = f"{sys.executable} -m agent {words} --socket {house.socket_path} {place}"
        program = await asyncio.create_subprocess_shell(line, stderr=-1)
        _, said = await program.communicate()
        assert (program.returncode, told in said) == (1, True), said
    assert not house.keys.kept


async def test_a_code_is_drawn_and_followed_until_its_scan(
    house: House, cli: Cli, eventually: Eventually
) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    drawn = await cli("qr", "sales")
    assert drawn.status == 0
    assert "█" in drawn.out
    assert "\x1b" not in drawn.out, "no colours into a pipe"

    watching = asyncio.create_task(cli("qr", "sales", "--watch", "--for", "60"))
    house.supervisor.codes[InstanceId("sales")] = Qr("SANDBOX,2@another", 20, 2)
    asked = house.supervisor.codes_asked
    await eventually(lambda: house.supervisor.codes_asked > asked + 1)
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    said = await watching
    assert said.status == 0
    assert "code 2" in said.out
    assert said.out.endswith("sales is connected\n")


async def test_waiting_ends_when_it_is_connected_and_health_is_0(house: House, cli: Cli) -> None:
    late = await cli("create", "sales", "--engine", "sandbox", "--disabled", "--wait", "0.1")
    done, why = "sales created, disabled", "it is DISCONNECTED, waits for a scan"
    told = f"wa-agent: {done}; cannot wait longer for sales: {why}\n"
    assert (late.status, late.err) == (75, told)
    unsent = await cli("send", "sales", "4915112345678", "hello")
    assert (unsent.status, "not kept for later; cannot" in unsent.err) == (4, True), "and not 75"
    assert (await cli("health", "sales")).status == 1
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    assert (await cli("enable", "sales", "--wait", "5")).out == "sales is connected\n"
    assert (await cli("health", "sales")).status == 0


async def test_f83_foreign_text_cannot_drive_the_terminal(house: House, cli: Cli) -> None:
    foul = "ok\x1b[2J\x07\x9b31m\u202egnp.exe\r\nfake line"
    house.supervisor.known[InstanceId("sales")] = make_view("sales", sentence=foul)
    house.supervisor.note(InstanceId("sales"), "status", foul)
    for argv in (("list",), ("show", "sales"), ("events",), ("events", "sales")):
        said = await cli(*argv)
        assert not set(said.out) & set("\x1b\x07\x9b\u202e\r"), argv
        assert not any(line.startswith("fake line") for line in said.out.splitlines())


def test_show_prints_no_raw_figures_and_no_lists_of_dicts() -> None:
    told = {"status_seconds": {"LOADING": 0.06}, "steps": [{"step": "restart", "count": 2}]}
    told |= {"cpu_seconds": 0.0021, "idle_seconds": 61.2, "claim": {"proof_age": 9.9e-06}}
    assert {name.strip(): value for name, value in _flat(told)} == {
        **{"steps.1": "step restart, count 2", "status_seconds.LOADING": "60 ms"},
        **{"cpu_seconds": "2.1 ms", "idle_seconds": "1 min 1 s", "claim.proof_age": "0 ms"},
    }


async def test_settings_are_merged_and_null_takes_one_away(house: House, cli: Cli) -> None:
    await cli("create", "sales", "--engine", "sandbox", "--set", "scan=manual", "--set", "rate=5")
    said = await cli("settings", "sales", "--set", "rate=null", "--set", "x=true", "--json")
    assert said.json() == {"scan": "manual", "x": True}
    for text in ("NaN", "-Infinity", "1e999"):
        said = await cli("settings", "sales", "--set", f"y={text}", "--json")
        assert said.json()["y"] == text, "no JSON has such a number, so it is a text"
    plain = await cli("settings", "sales", "--set", "x=false")
    assert plain.out.endswith("sales has its former settings until: wa-agent restart sales\n")
    assert (await cli("settings", "sales", "--set", "nonsense")).status == 2
    await cli("settings", "sales", "--set", "x=null", "--set", "y=null", "--set", "scan=null")
    assert (await cli("settings", "sales")).out == "nothing is set: defaults hold\n"


async def test_a_message_is_sent_once_per_key(
    house: House, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, up = house.supervisor.known, {InstanceId("sales"): make_view("sales")}
    known[InstanceId("sales")] = make_view("sales", status=ConnectionStatus.LOADING)
    monkeypatch.setattr("agent.cli.session.wait_until_connected", lambda *_: known.update(up))
    for _ in range(2):
        said = await cli("send", "sales", "49151123456", "hello", "--idempotency-key", "k")
        assert said.out == "sent message_id=M1\n"
    assert len(house.supervisor.sent) == 1
    house.supervisor.passing.clear()
    monkeypatch.setattr("agent.cli.client._LONGEST", 0.1)
    late = await cli("send", "sales", "49151123456", "hello")
    house.supervisor.passing.set()
    assert (late.status, "`wa-agent outbox sales`" in late.err) == (5, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("look",), {"type": "text", "text": "look"}),
        (("--quote", "M1", "yes"), {"type": "text", "text": "yes", "quote": "M1"}),
        ((), None),
    ],
)
async def test_a_text_is_sent_and_none_is_refused(
    house: House, cli: Cli, words: tuple[str, ...], told: dict[str, object] | None
) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    said = await cli("send", "sales", "49151123456", *words)
    assert said.status == (2 if told is None else 0), said.err
    sent = [{n: it for n, it in one.items() if n != "key"} for _, one in house.supervisor.sent]
    assert sent == ([] if told is None else [{"to": "49151123456", **told}])


async def test_the_sandbox_is_driven(house: House, cli: Cli) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    await cli("sandbox", "fault", "sales", "slow", "--for", "3")
    await cli("sandbox", "clear", "sales")
    await cli("sandbox", "scan", "sales")
    more = ("--type", "image", "--from-me", "--count", "2", "--fields", '{"name": "Ann"}')
    await cli("sandbox", "say", "sales", "+55 11 99999-0000", "hello", *more)
    wrong = await cli("sandbox", "say", "sales", "1", "hello", "--fields", "[1]")
    assert (wrong.status, "fields" in wrong.err) == (2, True)
    said = {"contact": "+55 11 99999-0000", "text": "hello", "type": "image", "count": 2}
    assert [row[1:] for row in house.supervisor.commands] == [
        ("fault", {"name": "slow", "for": 3.0}),
        ("fault", {"name": "clear"}),
        ("scan", {}),
        ("say", {**said, "from_me": True, "fields": {"name": "Ann"}}),
    ]
    got = {"cursor": 4, "chat": "1@lid", "id": "3EB0", "type": "text", "text": "a\nb"}
    house.supervisor.answers = {"heard": {"messages": [got], "next": 4, "more": True}}
    shown = await cli("sandbox", "heard", "sales", "--limit", "1")
    assert shown.out == "4  1@lid  3EB0  text  a�b\nmore: --after 4\n"
    assert (await cli("sandbox", "scan", "sales")).status == 2, "what it calls invalid is a 400"


async def test_events_are_listed_oldest_first_and_followed(house: House) -> None:
    for number in range(3):
        house.supervisor.note(InstanceId("sales"), "status", f"number {number}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "events", "-f", "-n", "2", "--json"),
        *("--socket", str(house.socket_path)),
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdout is not None

    async def heard() -> str:
        return json.loads(await process.stdout.readline())["sentence"]  # type: ignore[union-attr]

    assert [await heard(), await heard()] == ["number 1", "number 2"]
    house.supervisor.note(InstanceId("sales"), "status", "x" * 70_000)
    assert await heard() == "x" * 70_000
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


Leaves = list[tuple[str, argparse.ArgumentParser]]


def leaves(parser: argparse.ArgumentParser, path: str = "") -> Leaves:
    found: Leaves = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found += leaves(inner, f"{path} {name}".strip())
    return found or [(path, parser)]


def test_every_command_has_json_and_a_help_with_an_example_that_parses() -> None:
    whole = build_parser()
    for path, parser in leaves(whole):
        text = parser.format_help()
        assert "--json" in text, path
        words = text.partition("example:\n")[2].strip().splitlines()[0].partition(" > ")[0].split()
        assert words[0] == "wa-agent"
        assert " ".join(words[1:]).startswith(path)
        assert whole.parse_args(words[1:]).run is not None, path
