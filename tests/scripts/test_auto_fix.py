"""scripts/auto-fix-sessions.sh against a real server on loopback, real folders."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.forked import fork_agent
from tests.ports import free_port
from tests.standin.whaticket.keys import fresh

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


async def test_a_session_that_a_person_disconnected_is_not_started(place: Place) -> None:
    place.errors(5)
    place.server.status["7"] = "DISCONNECTED"
    for orders in (("all", "--dry-run"), ("all",)):
        done = await place.run(*orders)
        assert (done.status, "left as it is: it was disconnected" in done.out) == (0, True)
    assert (place.server.acts, place.server.status["7"]) == ([], "DISCONNECTED")
    assert (await place.run("7")).status == 0, "its id repairs it"
    assert place.server.status["7"] == "CONNECTED"


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


# --- secrets, kills, two at once --------------------------------------------------------------


async def test_no_secret_is_in_the_process_list_or_in_logs(place: Place) -> None:
    seen: list[bytes] = []

    async def look(_word: str) -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(file.read_bytes())
            except OSError:
                continue

    place.server.before = look
    place.errors(5)
    login = {"BACKEND_USER": "admin@x.example", "BACKEND_PASSWORD": PASSWORD}
    settings = {"BACKEND_TOKEN": f"{MADE}before", "SHELL_OF_TEST": "/bin/dash"}
    done = await place.run("all", "--debug", **login, **settings)
    assert done.status == 0
    assert any(b"repair_once" in line for line in seen)
    told = [done.out, done.err, *(tree(place.root / "logs").values())]
    everything = b"\0".join(seen) + "\n".join(told).encode()
    for secret in (PASSWORD, "pass\\word", MADE, TOKEN):
        assert secret.encode() not in everything, secret


@pytest.mark.parametrize("word", ["disconnect", "start-session", "7"])
async def test_a_kill_in_the_middle_loses_nothing_and_is_made_good(place: Place, word: str) -> None:
    before = tree(place.root / "auth")
    place.errors(5)
    killed = asyncio.Event()

    async def kill(asked: str) -> None:
        if asked == word and not killed.is_set():
            os.killpg(process.pid, signal.SIGKILL)
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


# --- how it is used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "settings", "status", "says"),
    [
        ([], {}, 2, "say all, a session, or --stats"),
        (["--all"], {}, 2, "cannot understand '--all'"),
        (["../x"], {}, 2, "cannot use '../x' as a session's id"),
        (["all"], {"LOG_FILE": ""}, 78, "LOG_FILE is not set"),
        (["all"], {"THRESHOLD": "five"}, 78, "cannot use THRESHOLD='five'"),
        (
            ["all"],
            {"BACKEND_URL": "http://a:b@c"},
            78,
            "without user and password",
        ),
        (["all"], {"BACKEND_TOKEN": ""}, 78, "set BACKEND_TOKEN, or BACKEND_USER"),
        (["all"], {"SESSIONS_DIR": "/nowhere/auth"}, 78, "cannot use SESSIONS_DIR: cannot list"),
        (["all"], {"AUDIT_LOG": "/proc/no/x.log"}, 78, "cannot write /proc/no/x.log"),
        (["all"], {"REDIS_URL": "redis://127.0.0.1:9/0"}, 5, "no connection to Redis (REDIS_URL"),
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


def test_shellcheck_has_nothing_to_say() -> None:
    needs("shellcheck")
    done = subprocess.run(
        ["shellcheck", "-s", "dash", "-S", "warning", str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
