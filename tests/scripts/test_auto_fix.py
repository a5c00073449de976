"""scripts/auto-fix-sessions.sh against a real server on loopback, real folders, a real Redis."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import Eventually
from tests.forked import fork_agent
from tests.ports import free_port
from tests.standin.whaticket.keys import FolderKeys, fresh
from tests.standin.whaticket.server import PASSWORD as STAND_IN_PASSWORD
from tests.standin.whaticket.server import USER, StandIn

SCRIPT = Path(__file__).parents[2] / "scripts" / "auto-fix-sessions.sh"
TOKEN, PASSWORD = "a-token-that-nobody-may-see", 'a "pass\\word" nobody may see'
MADE = "a-token-that-a-login-made-"
PEER, LID, OTHER = "5511999999999", "123456789012345", "5511888888888"


OF_THE_SHELL = {"SHELL_OF_TEST", "AUDIT_LOG", "PATH", "PYTHON"}
FORKED = """
import os, sys
os.setsid()
os.umask(0o77)
os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
from agent.engines.whaticket.repair_once import main
from tests.forked_workers import end_at_once
end_at_once(main(argv))
"""


def needs(*programs: str) -> None:
    for name in programs:
        assert shutil.which(name), f"{name} is missing; scripts/test installs its package"


def block(peer: str, *, device: int = 0) -> str:
    """What libsignal prints of one message that it cannot read."""
    return (
        "Failed to decrypt message with any known session...\n"
        "Session error:Error: Bad MAC Error: Bad MAC\n"
        "    at Object.verifyMAC (/app/node_modules/libsignal/src/crypto.js:87:15)\n"
        f"    at async {peer}.{device} [as awaitable] (/app/node_modules/libsignal/src/queue.js)\n"
    )


@dataclass
class Server:
    """A server with the routes of SPEC 9, and what it was asked."""

    folders: Path
    asked: list[str] = field(default_factory=list)
    status: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    comes_back_as: str = "CONNECTED"
    goes_down: bool = True
    lists: bool = False
    """It has a route that lists its sessions."""
    refuses: dict[str, int] = field(default_factory=dict)
    """By the word in its path: the status that it answers."""
    before: Callable[[str], Awaitable[None]] | None = None
    """Called with the request's word before anything is done, so that it can hang or kill."""
    url: str = ""

    @property
    def acts(self) -> list[str]:
        return [one for one in self.asked if one.split()[0] in ("disconnect", "start-session")]

    async def answer(self, request: web.Request) -> web.Response:
        word = request.path.rsplit("/", 1)[-1]
        session = request.match_info.get("id", "")
        word = word or "list"
        self.asked.append(f"{word if word != session else 'state'} {session}".strip())
        if self.before is not None:
            await self.before(word)
        if word in self.refuses:
            return web.json_response({"error": "no"}, status=self.refuses[word])
        if word == "login":
            told = await request.json()
            if told != {"email": "admin@x.example", "password": PASSWORD}:
                return web.json_response({"error": "ERR_INVALID_CREDENTIALS"}, status=401)
            self.tokens = {f"{MADE}{len(self.asked)}"}
            return web.json_response(
                {"user": {"token": "not this"}, "token": next(iter(self.tokens))}
            )
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return web.json_response({"error": "Invalid token."}, status=403)
        if word == "list" and self.lists:
            return web.json_response([{"id": id, "status": s} for id, s in self.status.items()])
        if session not in self.status:
            return web.json_response({"error": "ERR_NO_WAPP_FOUND"}, status=404)
        if word == "disconnect" and self.goes_down:
            self.status[session] = "DISCONNECTED"
        elif word == "start-session":
            self.status[session] = "OPENING"
            return web.json_response({"message": "Starting session."})
        elif self.status[session] == "OPENING":
            self.status[session] = self.comes_back_as
            return web.json_response({"queues": [{"status": "CONNECTED"}], "status": "OPENING"})
        return web.json_response({"queues": [{"status": "x"}], "status": self.status[session]})


@dataclass
class Place:
    """A project as an operator has it: server, log, auth folders, and the script's settings."""

    root: Path
    server: Server
    log: Path
    settings: dict[str, str]

    def add(self, session: str, *peers: str) -> Path:
        folder = self.root / "auth" / session
        folder.mkdir(parents=True)
        keys = {"creds": '{"me":{"id":"5511000000000:3@s.whatsapp.net"}}', "tctoken-x": "{}"}
        keys |= {"app-state-sync-key-AAAA": fresh("app state")}
        keys |= {f"pre-key-{number}": fresh("pre-key") for number in (1, 2)}
        for peer in peers:
            keys |= {f"session-{peer}.{device}": fresh("session") for device in (0, 12)}
            keys |= {f"device-list-{peer}": "[]"}
            keys |= {f"sender-key-120363@g.us--{peer}--0": fresh("sender key")}
            keys |= {f"sender-key-memory-{peer}@g.us": fresh("memory")}
        for name, text in keys.items():
            (folder / f"{name}.json").write_text(text)
        self.server.status[session] = "CONNECTED"
        return folder

    def errors(self, count: int, peer: str = PEER) -> None:
        with self.log.open("a") as log:
            log.write(block(peer) * count)

    async def begin(self, *argv: str, **settings: str) -> asyncio.subprocess.Process:
        environment = {"PATH": os.environ["PATH"], **self.settings, **settings}
        shell = environment.pop("SHELL_OF_TEST", "/bin/dash").split()
        return await asyncio.create_subprocess_exec(
            *shell,
            str(SCRIPT),
            *argv,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def run(self, *argv: str, **settings: str) -> "Said":
        """As `begin`, to its end; without the shell where nothing is asked of it: what it starts is
        forked from a process that has imported it."""
        if not settings.keys() & OF_THE_SHELL:
            environment = {"PATH": os.environ["PATH"], **self.settings, **settings}
            return await self._run_forked(argv, environment)
        process = await self.begin(*argv, **settings)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def _run_forked(self, argv: Sequence[str], env: Mapping[str, str]) -> "Said":
        out, err = self.root / "said.out", self.root / "said.err"
        first = f"err, argv = {str(err)!r}, {list(argv)!r}\n{FORKED}"
        with out.open("wb") as file:
            process = fork_agent([], env, file, first)
        async with asyncio.timeout(60):
            status = await process.wait()
        said = Said(status, out.read_text(), err.read_text())
        out.unlink()
        err.unlink()
        return said

    @property
    def audit(self) -> str:
        return (self.root / "logs" / "auto-fix-sessions.log").read_text()

    @property
    def removed(self) -> Path:
        return self.root / "logs" / "auto-fix-sessions" / "removed"


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


def words(text: str) -> str:
    return " ".join(text.split())


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    needs("dash")
    server = Server(tmp_path / "auth")
    app = web.Application()
    for verb, path in (
        ("PUT", "/whatsapp/{id}/disconnect"),
        ("PUT", "/whatsapp/{id}/start-session"),
        ("GET", "/whatsapp/{id}"),
        ("GET", "/whatsapp/"),
        ("POST", "/auth/login"),
    ):
        app.router.add_route(verb, path, server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    server.url = f"http://127.0.0.1:{port}"
    log = tmp_path / "server.log"
    log.write_text("Server started on port: 8080\n")
    settings = {
        "BACKEND_URL": server.url,
        "BACKEND_TOKEN": TOKEN,
        "LOG_FILE": str(log),
        "SESSIONS_DIR": str(tmp_path / "auth"),
        "AUDIT_LOG": str(tmp_path / "logs" / "auto-fix-sessions.log"),
        "WA_AGENT_SOCKET": str(tmp_path / "no-agent.sock"),
        "WAIT": "30",
        "POLL": "0.1",
        "TIMEOUT": "20",
        "TRIES": "2",
        "PAUSE": "0",
    }
    found = Place(tmp_path, server, log, settings)
    found.add("7", PEER, OTHER)
    found.add("8", "5511777777777")
    # The first round remembers where the log stands: the age of its lines is unknown.
    first = await found.run("all")
    assert (first.status, first.out, first.err) == (0, "nothing needs a repair\n", "")
    server.asked.clear()
    yield found
    await runner.cleanup()


# --- the round --------------------------------------------------------------------------------


async def test_a_round_renews_the_keys_of_failing_sessions_only(place: Place) -> None:
    seven, eight = place.root / "auth" / "7", place.root / "auth" / "8"
    before = tree(place.root / "auth")
    place.errors(5)
    done = await place.run("all")
    assert (done.status, done.err) == (0, "")
    assert words(done.out) == "ID WHY RESULT 7 5 crypto errors in 5 min recovered"
    assert place.server.acts == ["disconnect 7", "start-session 7"]
    gone = before.keys() - tree(place.root / "auth").keys()
    assert gone == {
        f"7/session-{PEER}.0.json",
        f"7/session-{PEER}.12.json",
        f"7/sender-key-120363@g.us--{PEER}--0.json",
    }
    assert tree(place.root / "auth") == {n: t for n, t in before.items() if n not in gone}
    (backup,) = (place.removed / "7").iterdir()
    assert {f"7/{n}": t for n, t in tree(backup / "files").items()} == {n: before[n] for n in gone}
    assert (seven / "creds.json").exists()
    assert (eight / "creds.json").exists()
    lines = place.audit.splitlines()
    assert [line.split("] ", 3)[3] for line in lines[:5]] == [
        "[7] 5 crypto errors in 5 min: it begins",
        "[7] disconnect: the server says that it is down",
        "[7] back up and remove: 3 files, 0 keys in Redis",
        "[7] start-session: the server takes it up",
        "[7] wait: it is connected",
    ]
    assert "[INFO] [RECOVERY] [7] recovered in " in lines[5]
    again = await place.run("all")
    assert (again.status, again.out) == (0, "nothing needs a repair\n")


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash --posix", "busybox sh"])
async def test_any_posix_shell_does_the_same(place: Place, tmp_path: Path, shell: str) -> None:
    needs(shell.split(maxsplit=1)[0])
    settings = {"SHELL_OF_TEST": shell}
    if shell.startswith("busybox"):
        tools = tmp_path / "busybox"
        tools.mkdir()
        install = await asyncio.create_subprocess_exec("busybox", "--install", "-s", str(tools))
        assert await install.wait() == 0
        settings = {"SHELL_OF_TEST": f"{tools}/sh", "PATH": str(tools)}
    with place.log.open("a") as log:
        log.write("2020-01-01 10:00:00 Session error:Error: Bad MAC\n" * 9)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log.write(f"{now} a line with a time\n" + block(PEER) * 5)
    done = await place.run("7", **settings)
    assert (done.status, done.err) == (0, "")
    assert "5 crypto errors in 5 min" in done.out
    assert not (place.root / "auth" / "7" / f"session-{PEER}.0.json").exists()


async def test_a_dry_round_says_what_it_would_do_and_does_nothing(place: Place) -> None:
    place.errors(6)
    before = tree(place.root)
    for _ in range(2):
        done = await place.run("all", "--dry-run", "--debug")
        assert done.status == 0
        assert (
            "would do: disconnect, back up and remove 3 files and 0 keys, start-session" in done.out
        )
        assert f"[7] would remove session-{PEER}.12.json" in done.err
    assert place.server.acts == []
    assert tree(place.root) == before


async def test_errors_of_two_rounds_add_up_and_few_are_none(place: Place) -> None:
    place.errors(4)
    assert (await place.run("all")).out == "nothing needs a repair\n"
    place.errors(1)
    assert "5 crypto errors" in (await place.run("all")).out


async def test_old_errors_and_errors_far_apart_do_not_count(place: Place) -> None:
    now = time.time()
    with place.log.open("a") as log:
        for ago in (2000, 1990, 1980, 1970, 1960, 1950, 800, 600, 400, 200, 0):
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - ago))
            log.write(f"{at}.123Z ERROR: it begins\n{block(PEER)}")
    assert (await place.run("all")).out == "nothing needs a repair\n"


@pytest.mark.parametrize("how", ["renamed", "copied and cut"])
async def test_a_log_that_rotates_loses_no_error_and_tells_none_twice(
    place: Place, how: str
) -> None:
    place.errors(2)
    await place.run("all")
    place.errors(1)
    old = place.log.with_name("server.log.1")
    if how == "renamed":
        place.log.rename(old)
    else:
        shutil.copy(place.log, old)
        place.log.write_text("")
    place.log.write_text("a new log begins\n")
    place.errors(1)
    assert (await place.run("all")).out == "nothing needs a repair\n", "four so far"
    with place.log.open("a") as log:
        log.write(block(PEER)[:60])  # half a line counts when the other half is there
    assert (await place.run("all")).out == "nothing needs a repair\n"
    with place.log.open("a") as log:
        log.write(block(PEER)[60:])
    assert "5 crypto errors" in (await place.run("all")).out


async def test_a_flood_is_read_in_parts_and_its_keys_go_nowhere(place: Place) -> None:
    dump = "Closing session: SessionEntry {\n  privKey: <Buffer 5e c2 e7 s3cr3t-k3y>\n}\n"
    with place.log.open("a") as log:
        log.write((dump + block(PEER)) * 20_000)
        log.write("x" * 3_000_000 + "\0\n")
    done = await place.run("all", "--debug", MAX_READ="6000000")
    assert done.status == 0
    assert "recovered" in done.out
    assert "were not read: more came than MAX_READ" in done.err
    told = done.out + done.err + "".join(tree(place.root / "logs").values())
    assert "s3cr3t-k3y" not in told
    memory = place.root / "logs" / "auto-fix-sessions" / "memory.json"
    assert memory.stat().st_size < 4000


# --- whose error it is ------------------------------------------------------------------------


async def test_a_line_or_a_file_can_name_the_session(place: Place, tmp_path: Path) -> None:
    place.add("9", PEER)  # now two sessions know the peer, and nothing tells them apart
    place.errors(5)
    lost = await place.run("all")
    assert (lost.status, lost.out) == (1, ""), "an error without a repair is no success"
    assert "5 errors name no session" in lost.err
    assert "set LOG_SESSION" in lost.err
    with place.log.open("a") as log:
        log.write(f"whatsappId=9 {block(PEER)}" * 5)
    done = await place.run("all", LOG_SESSION="whatsappId=")
    assert [row.split()[0] for row in done.out.splitlines()] == ["ID", "9"]
    logs = tmp_path / "per-session"
    logs.mkdir()
    for session in ("7", "9"):
        (logs / f"{session}.log").write_text("begins\n")
    await place.run("all", LOG_FILE=f"{logs}/{{id}}.log")
    (logs / "7.log").write_text("begins\n" + block(PEER) * 5)
    done = await place.run("all", LOG_FILE=f"{logs}/{{id}}.log")
    assert [row.split()[0] for row in done.out.splitlines()] == ["ID", "7"]


async def test_a_peer_known_by_two_names_loses_the_keys_of_both(place: Place) -> None:
    folder = place.root / "auth" / "7"
    names = (f"session-{LID}_1.0", f"session-{LID}_1.3", f"identity-key-{LID}_1.0")
    for name in names:
        (folder / f"{name}.json").write_text(fresh(name.split("-")[0]))
    (folder / f"lid-mapping-{PEER}.json").write_text(f'"{LID}"')
    (folder / f"lid-mapping-{LID}_reverse.json").write_text(f'"{PEER}"')
    place.errors(5)
    assert (await place.run("all")).status == 0
    assert not [name for name in names if (folder / f"{name}.json").exists()]
    assert (folder / f"lid-mapping-{PEER}.json").exists()
    assert (folder / "creds.json").exists()


PINO = (
    '{"level":50,"time":%d,"key":{"remoteJid":"120363@g.us","participant":"%s@s.whatsapp.net"},'
    '"err":{"type":"SessionError","message":"No session record"},'
    '"msg":"failed to decrypt message"}\n'
)
PRETTY = (
    "[%s] ERROR (77): failed to decrypt message\n    key: {\n"
    '      "remoteJid": "%s@s.whatsapp.net",\n'
    '      "fromMe": false\n    }\n    err: {\n      "type": "SessionError",\n'
    '      "message": "No session record",\n      "stack":\n          SessionError: No session\n'
    "              at SessionCipher.decrypt (file:///app/x.js:1:2)\n    }\n"
)


async def test_records_of_the_servers_logger_are_one_error_each(place: Place) -> None:
    clock = time.strftime("%H:%M:%S.000", time.gmtime())
    with place.log.open("a") as log:
        for seconds in (-100, -70, -40):
            log.write(PINO % ((time.time() + seconds) * 1000, PEER))
        log.write(PRETTY % (clock, PEER))
    assert (await place.run("all")).out == "nothing needs a repair\n"
    with place.log.open("a") as log:
        log.write(PINO % ((time.time() + 20) * 1000, PEER))
    assert "7 " in (await place.run("all", "--dry-run")).out


# --- the server -------------------------------------------------------------------------------


async def test_the_script_logs_in_and_again_when_its_token_is_too_old(place: Place) -> None:
    place.errors(5)
    login = {"BACKEND_TOKEN": "too-old", "BACKEND_USER": "admin@x.example"}
    done = await place.run("all", **login, BACKEND_PASSWORD=PASSWORD)
    assert (done.status, done.err) == (0, "")
    assert place.server.asked.count("login") == 1
    place.server.tokens = {"another"}  # what it was given is too old by now
    refused = await place.run("7", "--reset", **login, BACKEND_PASSWORD="wrong")
    assert refused.status == 4
    assert "user or password is refused" in refused.err


@pytest.mark.parametrize(
    ("word", "answer", "status", "says"),
    [
        ("disconnect", 500, 1, "cannot disconnect 7: 500 no"),
        ("disconnect", 403, 4, "the key is refused"),
        ("disconnect", 404, 3, "the server has no such route"),
        ("start-session", 500, 1, "cannot start 7: 500 no"),
    ],
)
async def test_refusals_of_the_server_have_their_exit_status(
    place: Place, word: str, answer: int, status: int, says: str
) -> None:
    place.errors(5)
    place.server.refuses = {word: answer}
    before = tree(place.root / "auth")
    done = await place.run("all")
    assert (done.status, says in done.out) == (status, True), done.out
    if word == "disconnect":
        assert tree(place.root / "auth") == before, "who still runs would write them back"


async def test_keys_of_a_session_that_the_server_still_runs_are_not_touched(place: Place) -> None:
    """It would write its old record back: a disconnect that was answered is none that was done."""
    place.errors(5)
    before = tree(place.root / "auth")
    place.server.goes_down = False
    done = await place.run("all", WAIT="1")
    assert (done.status, "it is still not down after 1 s" in done.out) == (1, True)
    assert tree(place.root / "auth") == before


async def test_keys_that_are_written_again_are_noticed(place: Place) -> None:
    place.errors(5)
    name = place.root / "auth" / "7" / f"session-{PEER}.0.json"

    async def write_again() -> None:
        while name.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
        name.write_text(fresh("session"))

    writer = asyncio.create_task(write_again())
    done = await place.run("all")
    await writer
    assert done.status == 1
    assert "1 were written again, so something still runs this session" in done.out
    assert place.server.acts == ["disconnect 7", "start-session 7"]


async def test_a_refused_disconnect_of_a_session_that_is_down_is_no_failure(place: Place) -> None:
    place.errors(5)
    place.server.status["7"] = "DISCONNECTED"
    place.server.refuses = {"disconnect": 400}
    done = await place.run("7")
    assert (done.status, "recovered" in done.out) == (0, True)


async def test_a_session_that_a_person_disconnected_is_not_started(place: Place) -> None:
    place.errors(5)
    place.server.status["7"] = "DISCONNECTED"
    for orders in (("all", "--dry-run"), ("all",)):
        done = await place.run(*orders)
        assert (done.status, "left as it is: it was disconnected" in done.out) == (0, True)
    assert (place.server.acts, place.server.status["7"]) == ([], "DISCONNECTED")
    assert (await place.run("7")).status == 0, "its id repairs it"
    assert place.server.status["7"] == "CONNECTED"


async def test_a_session_that_does_not_come_back_has_its_result(place: Place) -> None:
    place.errors(5)
    place.server.comes_back_as = "qrcode"
    done = await place.run("all")
    assert (done.status, "needs a person: scan its code" in done.out) == (1, True)
    place.errors(5)
    place.server.status["7"] = "CONNECTED"
    keys = place.root / "auth" / "7" / f"session-{PEER}.0.json"
    keys.write_text(fresh("session"))
    place.server.comes_back_as = "OPENING"
    done = await place.run("all", WAIT="2")
    assert (done.status, "it is OPENING after 2 s" in done.out) == (1, True)
    shown = (await place.run("--stats")).out
    assert "ended needing a person       1" in shown
    assert "failed                       2" in shown


async def test_backups_are_kept_for_a_week(place: Place) -> None:
    place.errors(5)
    await place.run("all")
    (backup,) = (place.removed / "7").iterdir()
    manifest = json.loads((backup / "manifest.json").read_text())
    for days, kept in ((6, True), (9, False)):
        manifest["wall"] = time.time() - days * 86400
        (backup / "manifest.json").write_text(json.dumps(manifest))
        await place.run("all")
        assert backup.exists() is kept


async def test_a_server_that_is_away_is_gone_on_with_when_it_is_back(place: Place) -> None:
    place.errors(5)
    done = await place.run("all", BACKEND_URL="http://127.0.0.1:9")
    assert (done.status, "connection refused" in done.out.lower()) == (5, True)
    done = await place.run("all")
    assert (done.status, "5 crypto errors in 5 min recovered" in words(done.out)) == (0, True)


async def test_a_reset_gives_the_pairing_up_and_keeps_the_folder(place: Place) -> None:
    before = tree(place.root / "auth" / "7")
    assert (await place.run("all", "--reset")).status == 2
    place.server.comes_back_as = "qrcode"
    done = await place.run("7", "--reset")
    assert (done.status, "started over: scan its new code" in done.out) == (0, True)
    assert not (place.root / "auth" / "7").exists()
    (backup,) = (place.removed / "7").iterdir()
    assert tree(backup / "files") == before
    shown = (await place.run("--stats")).out
    assert "cleaned                      1" in shown
    assert "success rate                 100%" in shown


async def test_the_stand_in_reads_its_messages_again(
    place: Place, tmp_path: Path, eventually: Eventually
) -> None:
    """A server with memory of its own, its own wording, and a login."""
    async with StandIn.opened(tmp_path / "desk") as desk:
        assert isinstance(desk.keys, FolderKeys)
        session = desk.add("7")
        await session.pair("551100000007", [PEER, OTHER], {})
        session.start()
        await eventually(lambda: session.row()["status"], "CONNECTED")
        settings = {
            "BACKEND_URL": desk.url,
            "BACKEND_TOKEN": "",
            "BACKEND_USER": USER,
            "BACKEND_PASSWORD": STAND_IN_PASSWORD,
            "LOG_FILE": str(desk.log.path),
            "SESSIONS_DIR": f"{desk.keys.root}/{{id}}",
            "WAIT": "20",
        }
        await place.run("all", **settings)
        before = tree(desk.keys.folder("7"))
        await session.damage(PEER)
        for _ in range(5):
            assert not session.receive(PEER)
        done = await place.run("all", **settings)
        assert (done.status, done.err) == (0, "")
        assert "5 crypto errors in 5 min" in done.out
        assert session.receive(PEER), "it is readable again"
        assert session.logouts == 0
        after = tree(desk.keys.folder("7"))
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert changed
        assert all(PEER in name for name in changed)


# --- nothing is left down, and nothing is called recovered that is not ------------------------


async def test_a_session_whose_start_is_refused_is_brought_up_by_a_later_round(
    place: Place,
) -> None:
    place.errors(5)
    place.server.refuses = {"start-session": 500}
    done = await place.run("all")
    assert (done.status, "cannot start 7: 500 no" in done.out) == (1, True)
    assert place.server.acts == ["disconnect 7", "start-session 7", "start-session 7"]
    assert place.server.status["7"] == "DISCONNECTED"
    still = await place.run("all")
    assert (still.status, "its last round was interrupted" in still.out) == (1, True)
    dry = await place.run("all", "--dry-run")
    assert "would do: start-session, wait" in dry.out
    place.server.refuses = {}
    place.server.asked.clear()
    done = await place.run("all")
    assert (done.status, "its last round was interrupted recovered" in words(done.out)) == (0, True)
    assert place.server.acts == ["start-session 7"]
    assert place.server.status["7"] == "CONNECTED"
    assert (await place.run("all")).out == "nothing needs a repair\n"


async def test_a_session_that_does_not_connect_in_time_is_not_forgotten(place: Place) -> None:
    place.errors(5)
    place.server.comes_back_as = "OPENING"
    done = await place.run("all", WAIT="1")
    assert (done.status, "it is OPENING after 1 s" in done.out) == (1, True)
    place.server.status["7"], place.server.comes_back_as = "DISCONNECTED", "CONNECTED"
    place.server.asked.clear()
    done = await place.run("all")
    assert (done.status, place.server.acts) == (0, ["start-session 7"])
    assert place.server.status["7"] == "CONNECTED"


async def test_a_damaged_memory_stops_the_round(place: Place) -> None:
    memory = place.root / "logs" / "auto-fix-sessions" / "memory.json"
    memory.write_text(memory.read_text()[:-20])
    done = await place.run("all")
    assert (done.status, "memory.json: it is damaged" in done.err) == (78, True)


NO_PEER = "Session error:Error: Bad MAC Error: Bad MAC\n    at Object.verifyMAC (x.js)\n\n"
BROKEN = {
    f"session-{PEER}.0": "",
    f"session-{OTHER}.12": '{"_sessions": {"x": {}}, "version": "v1"}',
    f"sender-key-120363@g.us--{OTHER}--0": '{"type": "Buffer", "data": "WzE="}',
    "pre-key-2": '{"private": {"type": "Buf',
    f"sender-key-memory-{OTHER}@g.us": "[]",
}


async def test_where_no_peer_is_named_the_damaged_records_are_found_by_reading(
    place: Place,
) -> None:
    shutil.rmtree(place.root / "auth" / "8")
    place.server.status.pop("8")
    folder = place.root / "auth" / "7"
    for name, text in BROKEN.items():
        (folder / f"{name}.json").write_text(text)
    before = tree(folder)
    with place.log.open("a") as log:
        log.write(NO_PEER * 5)
    done = await place.run("all")
    assert (done.status, "recovered" in done.out) == (0, True), done.out + done.err
    gone = before.keys() - tree(folder).keys()
    assert gone == {f"{name}.json" for name in BROKEN}
    (backup,) = (place.removed / "7").iterdir()
    assert tree(backup / "files") == {name: before[name] for name in gone}


async def test_a_damaged_own_group_key_is_removed_with_its_memory(place: Place) -> None:
    shutil.rmtree(place.root / "auth" / "8")
    folder = place.root / "auth" / "7"
    (folder / "sender-key-120363@g.us--5511000000000--3.json").write_text("{")
    (folder / "sender-key-memory-120363@g.us.json").write_text(fresh("memory"))
    before = tree(folder)
    with place.log.open("a") as log:
        log.write("No SenderKeyRecord found for decryption\n\n" * 5)
    assert (await place.run("all")).status == 0
    assert before.keys() - tree(folder).keys() == {
        "sender-key-120363@g.us--5511000000000--3.json",
        "sender-key-memory-120363@g.us.json",
    }


async def test_without_a_record_to_remove_nothing_is_interrupted_nor_called_recovered(
    place: Place,
) -> None:
    shutil.rmtree(place.root / "auth" / "8")
    before = tree(place.root / "auth")
    with place.log.open("a") as log:
        log.write(NO_PEER * 5)
    done = await place.run("all")
    assert done.status == 1
    assert "no peer is named, and no stored record is damaged" in done.out
    assert place.server.acts == []
    assert tree(place.root / "auth") == before
    shown = (await place.run("--stats")).out
    assert "repaired                     0" in shown
    assert "success rate                 0%" in shown
    dry = await place.run("all", "--dry-run")
    assert "would do: nothing: no record to remove" in dry.out


async def test_a_folder_of_sessions_that_holds_none_is_an_error(place: Place) -> None:
    place.errors(5)
    (place.root / "empty").mkdir()
    done = await place.run("all", SESSIONS_DIR=str(place.root / "empty"))
    assert (done.status, "cannot use SESSIONS_DIR: no session's folder" in done.err) == (78, True)
    done = await place.run("all", SESSIONS_DIR=str(place.root / "auth" / "{id}" / "more"))
    assert (done.status, "cannot use SESSIONS_DIR: " in done.err) == (78, True)
    assert place.server.acts == []


async def test_an_unknown_session_is_not_found(place: Place) -> None:
    done = await place.run("99")
    assert (done.status, "cannot find session 99" in done.err) == (3, True)
    place.server.lists = True
    assert (await place.run("99", "--dry-run")).status == 3


async def test_the_only_session_that_reconnects_gets_errors_that_name_none(place: Place) -> None:
    place.server.lists = True
    session = place.root / "auth" / "8" / "session-5511777777777.0.json"
    session.write_text("")
    with place.log.open("a") as log:
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        log.write(f"{now} Socket  8 Connection Update close Connection was lost\n")
        log.write(NO_PEER * 5)
    done = await place.run("all")
    assert (done.status, words(done.out).startswith("ID WHY RESULT 8 5 ")) == (0, True), done
    assert not session.exists()


async def test_a_log_in_another_zone_is_read_by_when_it_was_written(place: Place) -> None:
    """A server's container has a zone of its own: its errors are neither old nor to come."""
    ago = time.time() - 3 * 3600
    with place.log.open("a") as log:
        log.write(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ago)) + " a line\n")
        log.write(block(PEER) * 5)
    assert "5 crypto errors" in (await place.run("all", "--dry-run")).out
    for zone, count in (("-03:00", True), ("utc", False)):
        done = await place.run("all", "--dry-run", LOG_ZONE=zone)
        assert ("5 crypto errors" in done.out) is count


# --- Redis ------------------------------------------------------------------------------------


@pytest.fixture(params=["r3dis-s3cret"])
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., bytes]]:
    """A real one; the parameter is its password, "" for none."""
    needs("redis-server", "redis-cli")
    password = str(request.param)
    port = free_port()
    settings = f'port {port}\nbind 127.0.0.1\nsave ""\n'
    settings += f"requirepass {password}\n" if password else ""
    process = subprocess.Popen(
        ["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path
    )
    assert process.stdin is not None
    process.stdin.write(settings.encode())
    process.stdin.close()

    def ask(*argv: str, told: bytes | None = None) -> bytes:
        return subprocess.run(
            ["redis-cli", "-p", str(port), "-n", "3", *argv],
            env={**os.environ, **({"REDISCLI_AUTH": password} if password else {})},
            input=told,
            stdin=subprocess.DEVNULL if told is None else None,
            capture_output=True,
            check=False,
        ).stdout

    deadline = time.monotonic() + 60
    while ask("PING") != b"PONG\n":
        assert time.monotonic() < deadline, "Redis did not start"
        time.sleep(0.02)
    ask.url = f"redis://:{password}@127.0.0.1:{port}/3"  # type: ignore[attr-defined]
    yield ask
    process.terminate()
    process.wait(60)


@pytest.mark.parametrize("redis", ["r3dis-s3cret", ""], indirect=True)
async def test_the_keys_in_redis_are_dumped_before_they_go(
    place: Place, redis: Callable[..., bytes]
) -> None:
    shutil.rmtree(place.root / "auth")
    mine = (f"session-{PEER}.0", f"session-{LID}_1.5", f"sender-key-1@g.us::{PEER}::0")
    kept = ("creds", "pre-key-12", "app-state-sync-key-AAA=", f"session-{OTHER}.0")
    kept += (f"session-{PEER}9.0", f"sender-key-memory-{PEER}@g.us")
    for name in (*mine, *kept):
        redis("-x", "SET", f"sessions:7:{name}", told=name.encode() + b" with \0 \n bytes\n\n")
    redis("SET", "sessions:7:creds", '{"me":{"id":"5511000000000:3@s.whatsapp.net"}}')
    redis("SET", f"sessions:7:lid-mapping-{PEER}", f'"{LID}"')
    redis("SET", "sessions:8:session-5511777777777.0", "not mine")
    settings = {"REDIS_URL": redis.url, "SESSIONS_DIR": ""}  # type: ignore[attr-defined]
    everything = {key: redis("GET", key.decode()) for key in redis("KEYS", "*").split()}
    place.errors(5)
    done = await place.run("all", **settings)
    assert (done.status, done.err) == (0, "")
    left = set(redis("KEYS", "*").split())
    assert everything.keys() - left == {f"sessions:7:{name}".encode() for name in mine}
    (backup,) = (place.removed / "7").iterdir()
    back = await place.run("7", "--put-back", backup.name, **settings)
    assert (back.status, f"{backup.name} is put back" in back.out) == (0, True)
    assert {key: redis("GET", key.decode()) for key in redis("KEYS", "*").split()} == everything


@pytest.mark.parametrize("redis", [""], indirect=True)
@pytest.mark.parametrize("who", ["", ":@"])
async def test_a_redis_without_a_password_is_asked_without_one(
    place: Place, redis: Callable[..., bytes], who: str
) -> None:
    """The seed's own value: an empty password is none."""
    url = redis.url.replace(":@", who)  # type: ignore[attr-defined]
    shutil.rmtree(place.root / "auth")
    redis("SET", "sessions:7:creds", '{"me":{"id":"5511000000000:3@s.whatsapp.net"}}')
    redis("SET", f"sessions:7:session-{PEER}.0", "{")
    place.errors(5)
    done = await place.run("all", REDIS_URL=url, SESSIONS_DIR="")
    assert (done.status, "recovered" in done.out) == (0, True), done
    assert redis("KEYS", "*").split() == [b"sessions:7:creds"]


async def test_a_redis_that_refuses_us_is_an_error_before_anything_is_done(
    place: Place, redis: Callable[..., bytes]
) -> None:
    place.errors(5)
    url = redis.url  # type: ignore[attr-defined]
    for wrong in (url.replace(":r3dis-s3cret@", ""), url.replace("s3cret", "wr0ng")):
        done = await place.run("all", REDIS_URL=wrong)
        assert (done.status, "refuses the password, or asks for one" in done.err) == (5, True)
        assert "wr0ng" not in done.err
    assert place.server.acts == []


# --- secrets, kills, two at once --------------------------------------------------------------


async def test_no_secret_is_in_the_process_list_or_in_logs(
    place: Place, redis: Callable[..., bytes]
) -> None:
    seen: list[bytes] = []

    async def look(_word: str) -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(file.read_bytes())
            except OSError:
                continue

    (place.root / "auth" / "7" / "creds.json").rename(place.root / "creds.json")
    redis("-x", "SET", "sessions:7:creds", told=(place.root / "creds.json").read_bytes())
    redis("-x", "SET", f"sessions:7:session-{PEER}.0", told=fresh("session").encode())
    place.server.before = look
    place.errors(5)
    login = {"BACKEND_USER": "admin@x.example", "BACKEND_PASSWORD": PASSWORD}
    url = redis.url  # type: ignore[attr-defined]
    settings = {"BACKEND_TOKEN": f"{MADE}before", "REDIS_URL": url, "SESSIONS_DIR": ""}
    done = await place.run("all", "--debug", **login, **settings, SHELL_OF_TEST="/bin/dash")
    assert done.status == 0
    assert any(b"repair_once" in line for line in seen)
    told = [done.out, done.err, *(tree(place.root / "logs").values())]
    everything = b"\0".join(seen) + "\n".join(told).encode()
    for secret in (PASSWORD, "pass\\word", MADE, "r3dis-s3cret", TOKEN):
        assert secret.encode() not in everything, secret


@pytest.mark.parametrize("word", ["disconnect", "start-session", "7"])
@pytest.mark.parametrize("when", ["asked", "answered"])
async def test_a_kill_in_the_middle_loses_nothing_and_is_made_good(
    place: Place, word: str, when: str, eventually: Eventually
) -> None:
    before = tree(place.root / "auth")
    place.errors(5)
    killed = asyncio.Event()

    async def kill(asked: str) -> None:
        if asked == word and not killed.is_set():
            if when == "asked":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                asyncio.get_running_loop().call_later(0.02, os.killpg, process.pid, signal.SIGKILL)
            killed.set()

    place.server.before = kill
    process = await place.begin("all")
    await process.communicate()
    assert killed.is_set()
    left = tree(place.root / "auth")
    kept = {f"7/{file.name}": file.read_text() for file in place.removed.glob("7/*/files/*")}
    assert {**kept, **left} == before, "each file is where it was, or in a backup, and whole"
    done = await place.run("all")
    assert done.status == 0
    assert place.server.status["7"] == "CONNECTED"
    assert not [name for name in tree(place.root / "auth" / "7") if f"session-{PEER}." in name]
    assert (await place.run("all")).out == "nothing needs a repair\n"


async def test_two_rounds_never_run_at_once(place: Place) -> None:
    going, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_word: str) -> None:
        going.set()
        await go_on.wait()

    place.server.before = wait
    place.errors(5)
    first = await place.begin("all", TIMEOUT="20")
    async with asyncio.timeout(20):
        await going.wait()
    second = await place.run("all")
    assert (second.status, second.err) == (
        75,
        "auto-fix-sessions: another round runs; try again later\n",
    )
    os.killpg(first.pid, signal.SIGKILL)
    await first.wait()
    go_on.set()
    assert (await place.run("all")).status == 0, "a killed one leaves no lock"


async def test_a_round_that_is_told_to_stop_starts_its_session_again(place: Place) -> None:
    place.add("6", "5511666666666")

    async def stop(word: str) -> None:
        if word == "disconnect":
            process.send_signal(signal.SIGTERM)

    place.server.before = stop
    place.errors(5)
    place.errors(5, "5511666666666")
    process = await place.begin("all")
    await process.communicate()
    assert place.server.acts == ["disconnect 6", "start-session 6"]


async def test_q1_a_kill_between_removing_and_starting_leaves_no_session_down(
    place: Place,
) -> None:
    """The removal was done and not yet noted: nothing is left to remove, and it must start."""
    place.errors(5)
    key = place.root / "auth" / "7" / f"session-{PEER}.12.json"

    async def kill(_word: str) -> None:
        if not key.exists() and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)

    place.server.before = kill
    process = await place.begin("all")
    await process.communicate()
    place.server.before = None
    assert place.server.acts == ["disconnect 7"]
    memory = json.loads((place.root / "logs" / "auto-fix-sessions" / "memory.json").read_text())
    assert memory["down"]["7"]["taken"] is False
    done = await place.run("all")
    assert (done.status, "its last round was interrupted recovered" in words(done.out)) == (0, True)
    assert place.server.status["7"] == "CONNECTED"
    assert (await place.run("all")).out == "nothing needs a repair\n"


async def test_q2_a_removal_that_was_put_back_is_refused_and_nothing_is_touched(
    place: Place,
) -> None:
    place.server.comes_back_as = "qrcode"
    assert (await place.run("7", "--reset")).status == 0
    (removal,) = (place.removed / "7").iterdir()
    place.server.status["7"] = "DISCONNECTED"
    place.server.comes_back_as = "CONNECTED"
    done = await place.run("7", "--put-back", removal.name)
    assert (done.status, "is put back" in done.out) == (0, True), done.out
    assert "repaired                     0" in (await place.run("--stats")).out
    before, asked = tree(place.root / "auth"), list(place.server.acts)
    again = await place.run("7", "--put-back", removal.name)
    assert again.status == 1
    assert "it was put back already, and nothing of the session was touched" in again.out
    assert tree(place.root / "auth") == before
    assert place.server.acts == asked, "the session stayed connected"


async def test_q2_a_removal_that_is_no_longer_whole_moves_no_live_pairing_away(
    place: Place,
) -> None:
    place.server.comes_back_as = "qrcode"
    assert (await place.run("7", "--reset")).status == 0
    (removal,) = (place.removed / "7").iterdir()
    place.server.comes_back_as = "CONNECTED"
    (place.add("7", OTHER) / "creds.json").write_text('{"me":{"id":"55:4@s"}}')  # paired again
    before, asked = tree(place.root / "auth"), list(place.server.acts)
    damaged = removal / "files" / "creds.json"
    damaged.write_text(damaged.read_text() + " ")
    refused = await place.run("7", "--put-back", removal.name)
    assert refused.status == 1
    assert f"cannot put back {damaged}: it is missing or has changed" in refused.out
    assert (tree(place.root / "auth"), place.server.acts) == (before, asked)


@pytest.mark.parametrize("moved", [1, 3])
async def test_q2_a_put_back_that_was_killed_between_two_files_is_done_by_the_next_round(
    place: Place, moved: int
) -> None:
    """The round is killed while it moves single files: some are back, some are kept."""
    before = tree(place.root / "auth" / "7")
    place.server.comes_back_as = "qrcode"
    assert (await place.run("7", "--reset")).status == 0
    (removal,) = (place.removed / "7").iterdir()
    place.server.status["7"], place.server.comes_back_as = "DISCONNECTED", "CONNECTED"
    folder = place.root / "auth" / "7"
    folder.mkdir()
    for file in sorted((removal / "files").iterdir())[:moved]:
        file.rename(folder / file.name)
    memory = place.root / "logs" / "auto-fix-sessions" / "memory.json"
    left = json.loads(memory.read_text())
    left["down"] = {"7": {"since": time.time(), "why": "put back", "put_back": removal.name}}
    memory.write_text(json.dumps(left))
    done = await place.run("all")
    assert done.status == 0, done.out + done.err
    assert tree(folder) == before
    assert place.server.status["7"] == "CONNECTED"


@pytest.mark.parametrize("lists", [True, False])
async def test_q3_a_token_that_is_wrong_is_no_system_without_errors(
    place: Place, lists: bool
) -> None:
    place.server.lists = lists
    done = await place.run("all", BACKEND_TOKEN="wrong")
    assert (done.status, done.out) == (4, "")
    assert "the key is refused" in done.err


async def test_q3_a_server_that_is_away_is_no_system_without_errors(place: Place) -> None:
    done = await place.run("all", BACKEND_URL="http://127.0.0.1:9")
    assert (done.status, done.out) == (5, "")
    assert "connection refused" in done.err.lower()


async def test_q3_a_server_that_keeps_only_its_list_from_us_is_well(place: Place) -> None:
    place.server.refuses = {"list": 403}
    done = await place.run("all")
    assert (done.status, done.out, done.err) == (0, "nothing needs a repair\n", "")


# --- how it is used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "settings", "status", "says"),
    [
        ([], {}, 2, "say all, a session, or --stats"),
        (["--all"], {}, 2, "cannot understand '--all'"),
        (["all", "7"], {}, 2, "in one round"),
        (["../x"], {}, 2, "cannot use '../x' as a session's id"),
        (["all"], {"LOG_FILE": ""}, 78, "LOG_FILE is not set"),
        (
            ["all"],
            {"LOG_FILE": "/nowhere.log"},
            78,
            "cannot use LOG_FILE: cannot read /nowhere.log: no such file",
        ),
        (["all"], {"LOG_SESSION": "(("}, 78, "cannot use LOG_SESSION='(('"),
        (["all"], {"THRESHOLD": "five"}, 78, "cannot use THRESHOLD='five'"),
        (["all"], {"KEEP_DAYS": "0"}, 78, "cannot use KEEP_DAYS=0"),
        (
            ["all"],
            {"BACKEND_URL": "http://a:b@c"},
            78,
            "without user and password",
        ),
        (
            ["all"],
            {"DISCONNECT_ROUTE": "PUT /x"},
            78,
            "cannot use DISCONNECT_ROUTE: its path must hold {id} once",
        ),
        (["all"], {"BACKEND_TOKEN_FILE": "/nowhere"}, 78, "cannot read BACKEND_TOKEN_FILE"),
        (["all"], {"BACKEND_TOKEN": ""}, 78, "set BACKEND_TOKEN, or BACKEND_USER"),
        (["all"], {"LOG_ZONE": "CET"}, 78, "cannot use LOG_ZONE='CET'"),
        (["all"], {"SESSIONS_DIR": "/nowhere/auth"}, 78, "cannot use SESSIONS_DIR: cannot list"),
        (["all"], {"AUDIT_LOG": "/proc/no/x.log"}, 78, "cannot write /proc/no/x.log"),
        (["all"], {"REDIS_URL": "redis://127.0.0.1:9/0"}, 5, "no connection to Redis (REDIS_URL"),
        (["all"], {"REDIS_URL": "redis://127.0.0.1:9/x"}, 78, "its database is no number"),
        (["all"], {"REDIS_URL": "redis://127.0.0.1:9?a=b"}, 78, "an unknown option 'a'"),
    ],
)
async def test_wrong_settings_are_named_and_have_their_status(
    place: Place, argv: list[str], settings: dict[str, str], status: int, says: str
) -> None:
    done = await place.run(*argv, **settings)
    assert (done.status, says in done.err) == (status, True), done.err
    assert place.server.asked == []


def test_without_a_python_that_is_new_enough_it_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "scripts").mkdir(parents=True)
    (bare / "agent").mkdir()
    shutil.copy(SCRIPT, bare / "scripts")
    old = bare / "old-python"
    old.write_text("#!/bin/sh\nexit 2\n")  # as an older one answers to -P
    old.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", bare / "scripts" / SCRIPT.name, "all"],
        env={"PATH": "/nowhere", "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "cannot find a Python" in done.stderr) == (78, True)


async def test_a_bare_copy_of_the_agent_folder_and_any_python_are_enough(
    place: Place, tmp_path: Path, redis: Callable[..., bytes]
) -> None:
    """No installed package is seen (-S), and none of the project's other folders."""
    bare = tmp_path / "bare"
    shutil.copytree(SCRIPT.parents[1] / "agent", bare / "agent")
    (bare / "scripts").mkdir()
    shutil.copy(SCRIPT, bare / "scripts")
    python = bare / "python"
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    python.write_text(f'#!/bin/sh\nexec {base} -S "$@"\n')
    python.chmod(0o755)
    redis("-x", "SET", f"sessions:7:session-{PEER}.0", told=fresh("session").encode())
    place.errors(5)
    process = await asyncio.create_subprocess_exec(
        str(bare / "scripts" / SCRIPT.name),
        "all",
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **place.settings}
        | {"REDIS_URL": redis.url},  # type: ignore[attr-defined]
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"recovered" in out
    assert redis("KEYS", "*") == b"\n"
    assert not (place.root / "auth" / "7" / f"session-{PEER}.0.json").exists()


async def test_where_an_agent_runs_it_is_asked_instead(place: Place, tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/healthz", _well)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, place.settings["WA_AGENT_SOCKET"]).start()
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "wa-agent").write_text('#!/bin/sh\necho "$WA_AGENT_SOCKET: $*"; exit 4\n')
    (tools / "wa-agent").chmod(0o755)
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "LOG_FILE": ""}
    where = place.settings["WA_AGENT_SOCKET"]
    try:
        for argv, told in (
            (["all", "--debug"], "repair all --debug"),
            (["7", "--dry-run"], "repair 7 --dry-run"),
            (["--stats"], "repair --stats"),
            (["7", "--reset"], "cleanup 7 --yes"),
        ):
            done = await place.run(*argv, **path)
            assert (done.status, done.out) == (4, f"{where}: {told}\n")
    finally:
        await runner.cleanup()
    assert (await place.run("all", **path)).status == 78, "no agent: its own settings count"


async def _well(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


SETTINGS = (
    *("BACKEND_URL", "BACKEND_TOKEN_FILE", "BACKEND_PASSWORD_FILE", "CA_FILE", "LOG_SESSION"),
    *(
        "SESSIONS_DIR",
        "REDIS_PATTERN",
        "THRESHOLD",
        "WINDOW",
        "WAIT",
        "POLL",
        "TIMEOUT",
        "TRIES",
        "PAUSE",
    ),
    *("DISCONNECT_ROUTE", "START_ROUTE", "STATE_ROUTE", "LOGIN_ROUTE", "WA_AGENT_SOCKET"),
    *("AUDIT_LOG", "STATE_DIR", "BACKUP_DIR", "KEEP_DAYS", "MAX_READ"),
)


async def test_its_help_names_every_setting_it_reads(place: Place) -> None:
    shown = (await place.run("--help")).out
    assert shown.startswith("usage: scripts/auto-fix-sessions.sh all|ID")
    package = SCRIPT.parents[1] / "agent" / "engines" / "whaticket"
    code = (package / "once" / "options.py").read_text()
    code += (package / "repair_once.py").read_text()
    for name in SETTINGS:
        assert name in shown
        assert f'"{name}"' in code or f'"{name.removesuffix("_FILE")}"' in code


def test_shellcheck_has_nothing_to_say() -> None:
    needs("shellcheck")
    done = subprocess.run(
        ["shellcheck", "-s", "dash", "-S", "warning", str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
