"""scripts/auto-fix-sessions.sh: its environment, its log, and a run in processes of its own."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from agent.backends.whaticket import once
from agent.errors import ConfigError
from tests.backends.whaticket.test_logs import errors
from tests.conftest import Eventually
from tests.moving.test_from_pm2 import Pm2, pm2
from tests.standin.whaticket import words
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import Pace

__all__ = ["pm2"]

SCRIPT = Path(__file__).parents[2] / "scripts" / "auto-fix-sessions.sh"
PEER, OTHER = "5511999999999", "5511888888888"
TOKEN = "a-token-that-no-log-may-show"


@dataclass
class Place:
    """A server, and the script's settings for it."""

    root: Path
    standin: StandIn

    async def begin(self, *argv: str, **settings: str) -> asyncio.subprocess.Process:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "BACKEND_URL": self.standin.url,
            "BACKEND_USER": USER,
            "BACKEND_PASSWORD_FILE": str(self.root / "password"),
            "LOG_FILE": str(self.root / "logs/app.log"),
            "SESSIONS_DIR": str(self.root / "auth"),
            "AUDIT_LOG": str(self.root / "audit/auto-fix-sessions.log"),
            "WA_AGENT_SOCKET": str(self.root / "no-agent.sock"),
        }
        return await asyncio.create_subprocess_exec(
            *("/bin/dash", str(SCRIPT), *argv),
            env={**environment, **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def run(self, *argv: str, **settings: str) -> tuple[int, str]:
        process = await self.begin(*argv, **settings)
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    def break_keys(self) -> None:
        self.standin.log("\n".join([words.bad_mac(f"{PEER}.0")] * 5))

    def auth(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / "auth/7").iterdir()}

    @property
    def audit(self) -> str:
        return (self.root / "audit/auto-fix-sessions.log").read_text()


@pytest.fixture
async def place(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Place]:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    async with StandIn.opened(tmp_path, pace=Pace(write_every=60.0)) as standin:
        session = standin.add("7")
        await session.pair("5511000000007", [PEER, OTHER], {})
        session.start()
        await eventually(lambda: session.status, "CONNECTED")
        yield Place(tmp_path, standin)


FORMS = {"plain": {}, "time": {"time": True}, "json": {"log_type": "json"}}


async def test_a_run_renews_keys_and_says_each_step_in_its_log(
    place: Place, pm2: Pm2, eventually: Eventually
) -> None:
    """The server's log is a real pm2's, and says the same errors in each of its forms."""
    argv = ["-n", "+0", "-F", str(place.standin.log.path)]
    logs = {name: place.root / f"{name}.log" for name in FORMS}
    app = {"script": shutil.which("tail"), "args": argv, "interpreter": "none"}
    apps = [app | form | {"name": it, "out_file": str(logs[it])} for it, form in FORMS.items()]
    (place.root / "apps.json").write_text(json.dumps({"apps": apps}))
    await pm2.do(f"pm2 start {place.root}/apps.json")

    def told(log: Path) -> str:
        return log.read_text() if log.exists() else ""

    await eventually(lambda: all("Update open" in told(it) for it in logs.values()), within=60)
    log, wanted = logs["plain"], [[f"bad_mac {PEER} "] * 5] * 3
    assert await place.run("all", LOG_FILE=str(log)) == (0, "nothing needs a repair\n")
    assert place.audit == ""
    place.break_keys()
    await eventually(lambda: [errors(told(it)) for it in logs.values()], wanted, within=60)
    before = set(place.auth())
    assert await place.run("all", LOG_FILE=str(log)) == (0, "7: recovered\n")
    gone = before - set(place.auth())
    assert {name for name in gone if name.startswith("session-")} == {
        f"session-{PEER}.{device}.json" for device in (0, 12)
    }
    assert "creds.json" not in gone and place.standin.sessions["7"].status == "CONNECTED"
    lines = [line.split("] ", 1)[1] for line in place.audit.splitlines()]
    assert [line.removeprefix("[INFO] [RECOVERY] [7] ").split(":")[0] for line in lines] == [
        *("disconnect", "back up and remove", "start-session", "wait", "recovered")
    ]
    assert await place.run("all", LOG_FILE=str(log)) == (0, "nothing needs a repair\n")


async def test_an_interrupted_run_takes_its_session_up_again_and_another_waits(
    place: Place, eventually: Eventually
) -> None:
    await place.run("all")
    place.break_keys()
    place.standin.faults.stuck_opening = True  # it waits for the session until the other was heard
    process = await place.begin("all")
    await eventually(lambda: any("disconnect" in it for it in place.standin.requests), within=60)
    assert await place.run("all") == (75, "another round runs; try again later\n")
    os.killpg(process.pid, signal.SIGTERM)
    place.standin.faults.stuck_opening = False
    said, _ = await process.communicate()
    assert (process.returncode, said) == (0, b"7: recovered\n")
    assert place.standin.sessions["7"].status == "CONNECTED"


async def test_where_an_agent_answers_it_gets_the_arguments(place: Place) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return web.json_response({"error": "refused", "message": "no", "request": "1"}, status=409)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(place.root / "no-agent.sock")).start()
    try:
        status, said = await place.run("7", "--debug", LOG_FILE="")
    finally:
        await runner.cleanup()
    assert status == 4 and "wa-agent: " in said and any("/7" in it for it in asked)
    assert place.standin.logins == 0
    assert (await place.run("7", "--debug"))[0] == 2  # no agent: only all or ID


async def test_help_prints_the_variables(place: Place) -> None:
    status, said = await place.run("--help")
    named = {*once.VARIABLES.values(), "AUDIT_LOG", "STATE_DIR", "WA_AGENT_SOCKET"}
    assert status == 0 and [name for name in named if name not in said] == []


def test_without_a_python_that_has_it_the_script_says_so(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 2\n")  # as an older one answers to -P
    old.chmod(0o755)
    command, env = ["/bin/sh", tmp_path / "scripts" / SCRIPT.name, "all"], {"PYTHON": str(old)}
    env["PATH"] = "/nowhere"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot find a Python" in done.stderr) == (78, True)


def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", "-s", "dash", "-S", "warning", SCRIPT], check=True)


# the environment

GIVEN = {"BACKEND_TOKEN": TOKEN, "LOG_FILE": "/var/log/desk.log"}


def test_each_variable_is_a_setting() -> None:
    text = (
        "BACKEND_URL=https://desk.example:8081 BACKEND_USER=a@b BACKEND_PASSWORD=secret"
        " CA_FILE=/ca.pem TIMEOUT=2.5 LOG_FILE=/logs/{id}.log LOG_SESSION=session="
        " SESSIONS_DIR=/auth REDIS_URL=redis://:x@h:1/2 REDIS_PATTERN=wa:{id}:* THRESHOLD=3"
    )
    routes = {name: f"PUT /x/{{id}}/{name[0]}" for name in ("DISCONNECT_ROUTE", "START_ROUTE")}
    routes |= {"LIST_ROUTE": "GET /all", "LOGIN_ROUTE": "POST /in", "STATE_ROUTE": "GET /x/{id}"}
    given = dict(word.split("=", 1) for word in text.split()) | routes | {"WINDOW": "60"}
    declared, policy = once.read_settings(given)
    own = declared.own
    assert (declared.url, declared.timeout) == (given["BACKEND_URL"], 2.5)
    assert declared.ca_file == "/ca.pem"
    assert (own.user, own.password, own.auth_folder) == ("a@b", "secret", "/auth/{id}")
    assert (own.logs, own.log_session[:9]) == (("file:/logs/*.log",), "session=(")
    assert (own.redis_url, own.redis_pattern) == ("redis://:x@h:1/2", "wa:{id}:*")
    assert (policy.errors, policy.window) == (3, 60.0)
    for name, text in routes.items():
        assert str(own.route(name.split("_")[0].lower())) == text
    assert str(own.hang_up) == routes["DISCONNECT_ROUTE"]
    assert once.read_settings(GIVEN)[0].key == TOKEN


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("LOG_FILE", ""), ("THRESHOLD", "five"), ("THRESHOLD", "2.5"), ("WINDOW", "0")),
        *(("BACKEND_URL", "http://a:hush@c"), ("BACKEND_TOKEN", ""), ("BACKEND_USER", "x")),
        *(("LOG_SESSION", "(a)(b)"), ("START_ROUTE", "start"), ("TIMEOUT", "nan")),
        *(("SESSIONS_DIR", "/a/../b"), ("REDIS_URL", "http://x"), ("REDIS_PATTERN", "{id}*")),
        *(("BACKEND_TOKEN_FILE", "/nowhere"), ("BACKEND_PASSWORD", "x")),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        once.read_settings({**GIVEN, name: value})
    assert name in str(caught.value) and "hush" not in str(caught.value)


@pytest.mark.parametrize("argv", [[], ["--all"], ["../x"], ["all", "--dry-run"], ["7", "--reset"]])
def test_other_arguments_are_refused(argv: list[str]) -> None:
    assert once.main(argv, GIVEN) == 2


def test_a_log_that_cannot_be_written_ends_the_run_before_it_begins() -> None:
    assert once.main(["all"], {**GIVEN, "AUDIT_LOG": "/proc/no/x.log"}) == 78
