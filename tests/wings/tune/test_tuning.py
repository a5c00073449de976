"""tune shows what is, writes what is needed, and takes back exactly what it did."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.main import run
from agent.errors import WaError
from agent.wings.tune.tuning import DROP_IN, WANTED, Tuning

FRESH = {
    "net.core.somaxconn": "128",
    "net.ipv4.tcp_keepalive_time": "7200",
    "net.ipv4.tcp_keepalive_intvl": "75",
    "net.ipv4.tcp_keepalive_probes": "9",
    "net.ipv4.tcp_retries2": "15",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "fs.file-max": "9223372036854775807",
    "fs.nr_open": "1048576",
    "kernel.pid_max": "4194304",
    "vm.swappiness": "60",
    "vm.overcommit_memory": "0",
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine as Debian leaves it."""
    for name, value in FRESH.items():
        file = tmp_path / "proc/sys" / name.replace(".", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return tmp_path


def kernel(machine: Path) -> dict[str, str]:
    return {
        name: (machine / "proc/sys" / name.replace(".", "/")).read_text().strip() for name in FRESH
    }


def test_on_a_fresh_machine_tune_names_each_change_and_its_reason(machine: Path) -> None:
    rows = {row.name: row for row in Tuning(machine).rows()}
    assert set(rows) == set(FRESH)
    assert {name for name, row in rows.items() if row.good} == {
        "fs.file-max",
        "fs.nr_open",
        "kernel.pid_max",
        "vm.overcommit_memory",
    }
    assert rows["net.ipv4.ip_local_port_range"].now == "32768 60999"
    assert all(row.why for row in rows.values())


def test_applied_taken_back_and_nothing_is_left(machine: Path) -> None:
    tuning = Tuning(machine)
    written = tuning.apply(now=True)
    assert len(written) == 7
    assert all(row.good for row in tuning.rows())
    text = (machine / DROP_IN).read_text()
    assert "# before: vm.swappiness = 60\nvm.swappiness = 10\n" in text
    assert "fs.file-max" not in text
    assert tuning.undo() == written
    now = {name: value.replace("\t", " ") for name, value in kernel(machine).items()}
    assert now == {name: value.replace("\t", " ") for name, value in FRESH.items()}
    assert not (machine / DROP_IN).exists()
    assert tuning.undo() == []


def test_without_now_the_running_kernel_is_left_alone(machine: Path) -> None:
    tuning = Tuning(machine)
    before = kernel(machine)
    tuning.apply(now=False)
    assert kernel(machine) == before
    tuning.undo()
    assert kernel(machine) == before


def test_applied_twice_it_still_knows_what_was_before(machine: Path) -> None:
    tuning = Tuning(machine)
    tuning.apply(now=True)
    text = (machine / DROP_IN).read_text()
    tuning.apply(now=True)
    assert (machine / DROP_IN).read_text() == text
    tuning.undo()
    assert kernel(machine)["vm.swappiness"] == "60"


def test_values_that_an_operator_set_since_are_not_undone(machine: Path) -> None:
    tuning = Tuning(machine)
    tuning.apply(now=True)
    (machine / "proc/sys/vm/swappiness").write_text("1\n")
    tuning.undo()
    assert kernel(machine)["vm.swappiness"] == "1"
    assert kernel(machine)["net.core.somaxconn"] == "128"


def test_better_values_stay(machine: Path) -> None:
    (machine / "proc/sys/vm/swappiness").write_text("0\n")
    (machine / "proc/sys/net/core/somaxconn").write_text("65535\n")
    written = Tuning(machine).apply(now=True)
    assert "vm.swappiness" not in written
    assert kernel(machine)["net.core.somaxconn"] == "65535"


def test_a_file_that_comes_later_is_named(machine: Path) -> None:
    later = machine / "etc/sysctl.d/99-local.conf"
    later.parent.mkdir(parents=True)
    later.write_text("; theirs\nvm.swappiness = 100\nnet/core/somaxconn=4096\n")
    (machine / "etc/sysctl.conf").write_text("-net.ipv4.tcp_retries2=15\n#vm.swappiness=3\n")
    (machine / "etc/sysctl.d/10-first.conf").write_text("net.ipv4.tcp_keepalive_time = 9999\n")
    found = Tuning(machine).overriding()
    assert found == {
        "vm.swappiness": str(later),
        "net.ipv4.tcp_retries2": str(machine / "etc/sysctl.conf"),
    }


def test_settings_unknown_to_this_kernel_are_skipped(machine: Path) -> None:
    (machine / "proc/sys/kernel/pid_max").unlink()
    assert "kernel.pid_max" not in {row.name for row in Tuning(machine).rows()}


def test_the_units_limits_are_read_with_their_drop_ins(machine: Path) -> None:
    units = machine / "usr/local/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "wa-agent.service").write_text("[Service]\nLimitNOFILE=65536\n")
    (units / "wa-instance@.service").write_text("[Service]\nUser=x\n")
    extra = machine / "etc/systemd/system/wa-agent.service.d"
    extra.mkdir(parents=True)
    (extra / "less.conf").write_text("[Service]\nLimitNOFILE=512:4096\n")
    rows = {row.name: row for row in Tuning(machine).rows()}
    assert rows["LimitNOFILE of wa-agent.service"].now == "512"
    assert not rows["LimitNOFILE of wa-agent.service"].good
    assert rows["LimitNOFILE of wa-instance@.service"].now == "1024"
    assert not any("LimitNOFILE" in name for name in Tuning(machine).apply(now=False))


def test_a_read_only_kernel_is_said(machine: Path) -> None:
    file = machine / "proc/sys/vm/swappiness"
    file.unlink()
    file.symlink_to("/proc/self/mem-that-is-not-there/x")
    (machine / "etc").mkdir()
    (machine / "etc/sysctl.d").write_text("a file in the way")
    with pytest.raises(WaError, match="cannot write"):
        Tuning(machine).apply(now=True)


@given(st.text(max_size=300))
def test_no_content_of_the_drop_in_makes_tune_write_another_file(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = root / DROP_IN
        file.parent.mkdir(parents=True)
        file.write_text(text, errors="replace")
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/sys/kernel/panic").write_text("0")
        Tuning(root).undo()
        assert (root / "proc/sys/kernel/panic").read_text() == "0"


def test_a_forged_line_is_no_order(machine: Path) -> None:
    (machine / "proc/sys/kernel/core_pattern").write_text("core\n")
    tuning = Tuning(machine)
    tuning.apply(now=True)
    with (machine / DROP_IN).open("a") as file:
        file.write("# before: kernel.core_pattern = |/bin/evil\nkernel.core_pattern = core\n")
    tuning.undo()
    assert (machine / "proc/sys/kernel/core_pattern").read_text() == "core\n"


def test_every_setting_has_a_value_that_is_enough() -> None:
    assert all(one.enough(one.needed) for one in WANTED)


def test_the_command(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--root", str(machine))
    assert run(["tune", *root]) == 1
    assert "change  vm.swappiness" in capsys.readouterr().out
    assert run(["tune", "--apply", *root]) == 0
    assert "sysctl --load=" in capsys.readouterr().out
    assert run(["tune", "--apply", "--now", *root]) == 0
    assert run(["tune", *root]) == 0
    capsys.readouterr()
    assert run(["tune", "--json", *root]) == 0
    assert '"applied": true' in capsys.readouterr().out
    assert run(["tune", "--undo", *root]) == 0
    assert run(["tune", *root]) == 1
    assert run(["tune", "--undo", *root]) == 0
    assert "nothing to undo" in capsys.readouterr().out
    assert run(["tune", "--undo", "--apply", *root]) == 2
