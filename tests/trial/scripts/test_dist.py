"""The wheel and the sdist: built, checked, installed into a fresh environment, and tried."""

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import VERSION
from tests.conftest import Eventually
from tests.ports import free_port

SOURCE = Path(__file__).parents[3]


def build(out: Path) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    command = [SOURCE / "scripts/dist", "--out", out]
    # The tests' environment has what the build needs: nothing is fetched.
    done = subprocess.run(
        command, env={**os.environ, "WA_DIST_VENV": sys.prefix}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


def installed(wheel: Path, place: Path) -> Path:
    """A fresh environment with that wheel; the libraries are those of the tests."""
    venv.create(place)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # The tests' own pip: to lay out another one takes longer than all that it does here.
    pip = [sys.executable, "-I", "-m", "pip", "--python", place, "--disable-pip-version-check"]
    install = ["install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run([*pip, *install], check=True, timeout=120)
    return place


@pytest.fixture(scope="module")
def environment(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(built[1], tmp_path_factory.mktemp("elsewhere") / "venv")


def test_two_builds_are_the_same_and_their_metadata_is_whole(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    again = build(tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]
    twine = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(twine, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr
    assert built[1].name == f"wa_agent-{VERSION}-py3-none-any.whl"
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"CHANGELOG.md", "agent.toml.example", "systemd/wa-agent.service"} <= names


def test_nothing_that_the_program_reads_is_missing(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    made = {"__pycache__"}
    wanted = {
        path.relative_to(SOURCE)
        for path in (SOURCE / "agent").rglob("*")
        if path.is_file() and not made & set(path.parts) and path.name != "README.md"
    }
    missing = {path for path in wanted if not (site / path).is_file()}
    assert not missing
    share = environment / "share/wa-agent"
    for path in ("systemd", "scripts"):
        for file in (share / path).iterdir():
            assert file.read_bytes() == (SOURCE / path / file.name).read_bytes()
    units = {path.name for path in (SOURCE / "systemd").iterdir() if path.is_file()}
    assert {path.name for path in (share / "systemd").iterdir()} == units


@asynccontextmanager
async def demo(environment: Path, home: Path, listen: str) -> AsyncIterator[Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("WA_")}
    with (home / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *(environment / "bin/wa-agent", "demo", "--listen", listen),
            env={**env, "XDG_STATE_HOME": str(home)},
            cwd=home,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_first_minute_without_a_checkout(
    environment: Path, tmp_path: Path, eventually: Eventually
) -> None:
    listen, state = f"127.0.0.1:{free_port()}", tmp_path / "wa-agent" / "demo"

    def said() -> str:
        return (tmp_path / "said").read_text(errors="replace")

    async def cli(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(environment / "bin/wa-agent", *words),
            env={**os.environ, "WA_AGENT_SOCKET": str(state / "api.sock")},
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0].decode()

    for greeting in ("Scan it:", "its session was restored"):
        async with demo(environment, tmp_path, listen) as process:
            await eventually(lambda: "Stop:" in said(), within=60)
            assert greeting in said()
            assert f"Dashboard:  http://{listen}/" in said()
            if greeting == "Scan it:":
                assert "█" in said() or "▀" in said(), "the code itself"
                await cli("sandbox", "scan", "demo")

            async def is_connected() -> bool:
                return '"connection_status": "CONNECTED"' in await cli("show", "demo", "--json")

            await eventually(is_connected, within=30)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(30):
                assert await process.wait() == 0
            assert f"Its state stays in {state}" in said()
    assert state.stat().st_mode & 0o777 == 0o700


def harmless(*command: Path | str) -> list[Path | str]:
    """The command, where this machine's own folders cannot be written."""
    if os.geteuid() != 0:
        return [*command]
    closed = "for dir in /usr /etc /var; do mount -o bind,ro $dir $dir; done"
    return ["unshare", "--mount", "sh", "-e", "-c", f'{closed}; exec "$@"', "sh", *command]


def test_units_are_refused_where_they_cannot_work(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        harmless(environment / "bin/wa-agent", "install-units", "--json"),
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    reason = "hidden" if os.geteuid() == 0 else "not_root"
    assert (done.returncode, f'"error": "{reason}"' in done.stderr) == (4, True), done.stderr
    done = subprocess.run(
        harmless(sys.executable, "-m", "agent", "install-units", "--json"),
        capture_output=True, text=True, check=False, cwd=SOURCE,
    )  # fmt: skip
    assert (done.returncode, "no_environment" in done.stderr) == (4, True), done.stderr
