"""Commands that need no agent: version and config; and where things are looked for."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from unittest.mock import Mock

import pytest
from rich.console import Console

from agent.__main__ import main
from agent.cli.client import checkout, config_path, socket_candidates, whole_file
from agent.cli.command import Table, clean, fitted, run, shown
from agent.errors import WaError
from tests.cli.conftest import elsewhere
from tests.full import fill

__all__ = ["elsewhere"]


def test_the_version_comes_without_the_agents_libraries() -> None:
    code = (
        "import sys; from agent.cli.command import run; run(['version']);"
        "print(*sorted({'aiohttp','asyncio','psutil','sqlite3','http.client','segno','rich'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, heavy = done.stdout.splitlines()
    assert first.startswith("wa-agent 0.")
    assert heavy == ""


def test_version_and_its_option_print_the_same_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("agent.cli.agent", "agent.cli.command"):
        monkeypatch.setattr(f"{module}.VERSION", "1.2.3")
        monkeypatch.setattr(f"{module}.BUILD", "9f1c2d3")
    for argv in (["version"], ["--version"]):
        assert run(argv) == 0
        assert capsys.readouterr().out == "wa-agent 1.2.3, 9f1c2d3\n"


def test_ctrl_c_while_the_program_loads_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "agent.cli.command")
    monkeypatch.setattr("sys.meta_path", [Mock(find_spec=Mock(side_effect=KeyboardInterrupt))])
    assert main() == 130


def test_a_shown_configuration_hides_what_opens_backends(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "a.toml").write_text(
        "[[backend]]\nname = 'desk'\nengine = 'whaticket'\nurl = 'http://d.example'\n"
        "user = 'a@b.example'\npassword = 'P-1'\nredis_url = 'redis://:R-1@r:6379/0'\n"
    )
    for more in ([], ["--json"]):
        assert run(["config", "show", "--config", "a.toml", *more]) == 0
        out = capsys.readouterr().out
        assert "***" in out
        assert "redis://***@r:6379/0" in out
        assert not any(secret in out for secret in ("P-1", "R-1"))
    assert run(["config", "check", "--config", "a.toml", "--json"]) == 0
    assert "P-1" not in capsys.readouterr().out


def test_a_variable_for_another_program_is_reported_and_stops_nothing(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "a.toml").write_text("")
    monkeypatch.setenv("REDIS_URL", "redis://:R-1@cache:6379")
    assert run(["config", "check", "--config", "a.toml"]) == 0
    said = capsys.readouterr()
    assert said.out == "a.toml: usable\n"
    assert said.err.startswith("wa-agent: the environment variable REDIS_URL is not used: ")
    assert run(["config", "check", "--config", "a.toml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["good"]
    assert ["REDIS_URL" in one for one in found["warnings"]] == [True]
    assert "R-1" not in said.err + str(found)


def test_a_configuration_is_written_checked_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    state = str(tmp_path / "state")
    argv = ["--config", str(file)]
    assert run(["config", "init", *argv, "--state", state, "--listen", "127.0.0.1:9999"]) == 0
    assert run(["config", "check", *argv]) == 0
    capsys.readouterr()
    assert run(["config", "show", *argv, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["api"]["listen"] == "127.0.0.1:9999"
    assert shown["agent"]["state_path"] == state
    assert (run(["config", "init", *argv]), run(["config", "init", "--config", "/no/x"])) == (4, 4)
    assert re.search("it exists(.|\n)*/no is no folder", capsys.readouterr().err)
    file.write_text("[api]\nlisten = 5\n")
    assert run(["config", "check", *argv]) == 78
    assert "api.listen" in capsys.readouterr().err
    file.write_text("[[webhook]]\nname = 'ops'\nurl = 'http://localhost:9/'\n")
    assert run(["config", "check", *argv]) == 0
    assert "webhook ops, at 127.0.0.1: it is loopback" in capsys.readouterr().err


EVO = "[[backend]]\nname = 'e'\nengine = 'evolution'\nurl = 'http://h'\nkey_file = '/none'"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("secret_file = '/none'", "(secret_file of webhook ops): No such file or directory; write"),
        (EVO, "(key_file of backend e): No such file or directory; write that file"),
        ("kinds = ['call', 'statsu']", "'statsu' in kinds of webhook ops: no event is of it; did"),
        ("instances = ['s*', 'shop1']", "ops: no instance shop1 yet; did you mean shop-1?"),
        ("[[instance]]\nid = 'b'\nengine = 'program'", "cannot run b as program '': agent.toml"),
        ("[fleet]\nstore = ['https://10.0.0.1:1']", "[fleet] store is https, without"),
    ],
)
def test_a_check_finds_what_an_agent_starts_without(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], row: str, told: str
) -> None:
    shop = "[agent]\nstate_path = 's'\n[[instance]]\nid = 'shop-1'\nengine = 'sandbox'\n"
    (elsewhere / "a.toml").write_text(f"{shop}[[webhook]]\nname = 'ops'\nurl = 'http://h'\n{row}")
    assert run(["config", "check", "--config", "a.toml"]) == (78 if " of " in told else 0)
    assert told in capsys.readouterr().err


def test_f32_f41_a_disk_without_room_keeps_the_old_configuration(
    small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_disk("size=64k,mode=0755")
    file = folder / "agent.toml"
    file.write_text('[agent]\nlog_level = "debug"\n')
    file.chmod(0o640)
    before = file.read_bytes()
    argv = ["config", "init", "--config", str(file), "--force", "--listen", "127.0.0.1:9999"]
    filler = fill(folder)
    assert run(argv) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert sorted(part.name for part in folder.iterdir()) == ["agent.toml", "filler"]
    filler.unlink()
    assert run(argv) == 0
    assert "127.0.0.1:9999" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640


def test_the_agent_is_looked_for_where_it_may_be(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert socket_candidates({"WA_AGENT_SOCKET": "/x/y"}) == [Path("/x/y")]
    found = socket_candidates({})
    assert found[-1] == Path("/run/wa-agent/api.sock")
    assert elsewhere / ".state" / "api.sock" not in found
    (elsewhere / ".state").mkdir()
    (elsewhere / ".state" / "api.sock").touch()
    assert socket_candidates({})[0] == elsewhere / ".state" / "api.sock"
    if os.geteuid() == 0:
        os.chown(elsewhere / ".state" / "api.sock", 12345, 12345)
        assert elsewhere / ".state" / "api.sock" not in socket_candidates({})


def test_of_files_written_to_one_new_place_at_once_one_stays(tmp_path: Path) -> None:
    written = Barrier(4)

    def write(text: bytes) -> bytes | None:
        with suppress(WaError), whole_file(tmp_path / "x") as file:
            file.write(text)
            written.wait(20)
            return text
        return None

    with ThreadPoolExecutor(4) as pool:
        said = [it for it in pool.map(write, [b"a", b"b", b"c", b"d"]) if it]
    assert [it.read_bytes() for it in tmp_path.iterdir()] == said


def test_a_named_configuration_wins() -> None:
    assert config_path("a", {"WA_AGENT_CONFIG": "b"}) == Path("a")
    assert config_path(None, {"WA_AGENT_CONFIG": "b"}) == Path("b")
    assert checkout() is not None
    assert config_path(None, {}) is None, "a checkout reads no installed file"


def test_tables_stay_aligned_and_print_no_foreign_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"A": "a", "B": "b"}
    table = Table([{"a": "abc", "b": "x"}, {"a": "abcde", "b": "y"}], columns)
    assert str(table).splitlines() == ["A      B", "abc    x", "abcde  y"]
    Console().print(Table([{"a": "CONNECTED", "b": "a\x1b[2Jb [red]"}], columns).drawn())
    drawn = capsys.readouterr().out
    assert ("CONNECTED" in drawn, "a�[2Jb [red]" in drawn, "\x1b" in drawn) == (True, True, False)
    monkeypatch.setenv("COLUMNS", "80")
    long = dict.fromkeys(("ID", "MEMORY", "STATUS", "OLDEST", "WHY"), "CONNECTED " * 2)
    Console(width=80).print(Table([long], {it: it for it in long}).drawn())
    assert "STATUS" in (wide := capsys.readouterr().out) and "is narrow: OLDEST MEMORY" in wide
    assert wide.count("CONNECTED") == 6, "each word is whole"
    monkeypatch.setenv("COLUMNS", "40")
    copy = {"NAME": "sales.20260115T103045Z-4", "ID": "sales", "RETIRED": "2026-01-15 10:30:45"}
    Console(width=40).print(Table([copy], {it: it for it in copy}).drawn())
    parts = ["sales.20260115T10", "2026-01-15", "3045Z-4", "10:30:45"]
    assert capsys.readouterr().out.split("not shown")[0].split()[-4:] == parts, "nothing is cut"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    trouble = fitted("critical given_up since 2026-01-15 10:30:45", "sales is down " * 5)
    assert max(map(len, re.sub("\x1b.*?m", "", trouble).splitlines())) <= 40
    assert (clean("a\x1b[0mb\u202ec\ud800"), shown("_wall", 4e12)) == ("a�[0mb�c�", 4e12)


@pytest.mark.parametrize(
    ("shell", "status", "said"),
    [
        ('LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 exec "$@" config check --config é', 78, "é"),
        ('echo [x]>a; "$@" run --config a --state s; set $?; test -e s || exit $1', 78, "x in a"),
        ('PYTHONIOENCODING=ascii exec "$@" config check --config é', 78, "\\xe9"),
        ('mkdir gone; cd gone; rmdir ../gone; exec "$@" config check', 1, "the working folder"),
        ('printf "\\377" | "$@" send a 1 -', 2, "they are no UTF-8"),
        (': > x; exec "$@" send a 1 --file x', 2, "cannot send x: it is empty"),
        ('exec "$@" import /proc/self/mem', 2, "cannot read /proc/self/mem: Input/output error"),
        ('exec "$@" send a 1 hi --wait -1', 2, "argument --wait: invalid seconds value: '-1'"),
        ('exec "$@" import ""', 2, "cannot use '' as a path"),
        ('exec "$@" incidents release ""', 2, "cannot use '' as the name of a group"),
        ('ln -s x x; exec "$@" config init --config x', 4, "x: it is a link"),
        ('"$@" reasons > /dev/full', 1, "wa-agent: cannot use the standard output"),
        ('exec "$@" reasons >&-', 1, "wa-agent: cannot use the standard output"),
        ('"$@" reasons | head -n 1', 0, ""),
        ('TZ=UTC+99 "$1" -c "import agent.cli.command as c; c.moment(\'2026-01-15\')"', 0, ""),
    ],
)
def test_odd_surroundings_of_a_command_end_in_a_sentence(
    shell: str, status: int, said: str, tmp_path: Path
) -> None:
    program = ("sh", "-c", shell, "sh", sys.executable, "-m", "agent")
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == bool(status), done.stderr
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
