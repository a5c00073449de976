"""Debian's Prometheus and Alertmanager as the README sets them up, by its very lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.bed import SOURCE, Bed

README = (SOURCE / "agent/metrics/README.md").read_text()
UNITS = ("prometheus.service", "prometheus-alertmanager.service")
FOLDER = "/etc/prometheus"


def scripts(section: str) -> list[str]:
    """The shell blocks of a section, as root types them."""
    text = README.split(f"# {section}\n", 1)[1]
    return [block.replace("sudo ", "") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]


class Pack:
    """The two servers in the bed, and a listener as the drill's second terminal."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.prometheus, self.alertmanager, self.listener = (free_port() for _ in range(3))
        self.heard = bed.path("/tmp/heard")

    def type(self, script: str) -> None:
        self.bed.run("bash", "-euc", script, within=120)

    def ask(self, path: str) -> object:
        said = self.bed.run("curl", "-sf", f"http://127.0.0.1:{self.prometheus}{path}")
        return json.loads(said)["data"]

    def told(self) -> list[str]:
        """The whole lines: the last one may be half written."""
        return self.heard.read_text().split("\n")[:-1] if self.heard.exists() else []

    def at_free_ports(self) -> None:
        """The bed shares the loopback of the outside: ports and waits are all that is changed."""
        here = "127.0.0.1"
        for name, port, more in (
            ("prometheus", self.prometheus, ""),
            ("prometheus-alertmanager", self.alertmanager, " --cluster.listen-address="),
        ):
            listen = f"--web.listen-address={here}:{port}{more}"
            self.bed.write(f"/etc/default/{name}", f'ARGS="{listen}"\n')
        self.change(
            "prometheus.yml",
            (f'"{here}:8470"', f'"{here}:{self.bed.port}"'),
            (f'"{here}:9093"', f'"{here}:{self.alertmanager}"'),
            ("scrape_interval: 15s", "scrape_interval: 1s"),
        )
        self.change(
            "alertmanager.yml",
            (f"http://{here}:9099", f"http://{here}:{self.listener}"),
            ("group_wait: 30s", "group_wait: 1s"),
            ("group_interval: 5m", "group_interval: 2s"),
        )

    def change(self, name: str, *pairs: tuple[str, str]) -> None:
        file: Path = self.bed.root / FOLDER.lstrip("/") / name
        text = file.read_text()
        for ours, theirs in pairs:
            assert ours in text, (name, ours)
            text = text.replace(ours, theirs)
        file.write_text(text)


@pytest.fixture
def pack(bed: Bed) -> Iterator[Pack]:
    masks = [bed.root / "etc/systemd/system" / unit for unit in UNITS]
    for mask in masks:
        mask.unlink()
    bed.run("systemctl", "daemon-reload")
    made = Pack(bed)
    yield made
    bed.try_run("systemctl", "stop", *UNITS, "listener.service")
    for mask in masks:
        mask.symlink_to("/dev/null")
    bed.run("systemctl", "daemon-reload")
    bed.try_run("wa-agent", "delete", "sales")


def test_the_drill_of_the_readme_ends_as_written(pack: Pack) -> None:
    bed = pack.bed
    install, lose, end, put_back = scripts("Alerts")
    install = "\n".join(line for line in install.splitlines() if not line.startswith("apt "))
    pack.type("wa-agent create sales --engine sandbox --set scan=auto --wait 60")
    # A strict umask at the installation keeps nothing from Prometheus' own user.
    pack.type(f"umask 077\n{install}")
    assert bed.run("stat", "-c", "%a %U %G", f"{FOLDER}/wa-agent.key").split() == [
        "640",
        "root",
        "prometheus",
    ]
    pack.at_free_ports()
    bed.run("systemctl", "restart", *UNITS)
    for unit in UNITS:
        assert bed.show(unit, "User") == "prometheus"
    bed.until(lambda: wanted(pack) == ["sales"], within=30)

    listen = ("wa-agent", "alerts", "listen", "--at", f"127.0.0.1:{pack.listener}")
    output = "--property=StandardOutput=file:/tmp/heard"
    bed.run("systemd-run", "--unit=listener", output, *listen)
    pack.type(lose)
    bed.until(lambda: about(pack, "  warning  "), within=90)
    (line, *_) = about(pack, "  warning  ")
    assert "WaSessionDown: sales should be connected and is not: " in line
    assert line.endswith("wa-agent alerts explain WaSessionDown")
    amtool = ("amtool", "alert", f"--alertmanager.url=http://127.0.0.1:{pack.alertmanager}")
    assert "sales should be connected and is not" in bed.run(*amtool)

    # Under systemd only the worker may count its files.
    bed.until(lambda: 3 < value(pack, "wa_session_open_fds") < 100, within=60)

    pack.type(end)
    bed.until(lambda: about(pack, "  is over  "), within=60)
    pack.type(put_back)
    bed.until(lambda: "for: 5m" in (bed.root / "etc/prometheus/wa-agent.rules.yml").read_text())
    bed.until(lambda: slowest(pack) == 900, within=30)


def about(pack: Pack, how: str) -> list[str]:
    return [line for line in pack.told() if how in line and "WaSessionDown" in line]


def wanted(pack: Pack) -> list[str]:
    """The sessions that Prometheus scraped."""
    try:
        found = pack.ask("/api/v1/query?query=wa_session_wanted")
    except AssertionError:
        return []
    assert isinstance(found, dict)
    return [one["metric"]["session"] for one in found["result"]]


def value(pack: Pack, query: str) -> float:
    """Of the one series there is; 0 while there is none."""
    found = pack.ask(f"/api/v1/query?query={query}")
    assert isinstance(found, dict)
    return float(found["result"][0]["value"][1]) if found["result"] else 0.0


def slowest(pack: Pack) -> float:
    """The longest wait of the rules in force."""
    found = pack.ask("/api/v1/rules?type=alert")
    assert isinstance(found, dict)
    return max(rule["duration"] for group in found["groups"] for rule in group["rules"])
