"""Debian's Prometheus and Alertmanager, set up with the very blocks of agent/metrics/README.md."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.ports import free_port
from tests.system.bed import SOURCE, Bed

README = (SOURCE / "agent/metrics/README.md").read_text()
UNITS = ("prometheus.service", "prometheus-alertmanager.service")
FOLDER = "/etc/prometheus"


def blocks(kind: str) -> list[str]:
    """The blocks of the section as root types or writes them."""
    text = README.split("## Prometheus, Alertmanager, Grafana\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return [block.replace("sudo ", "") for block in found]


class Receiver:
    """The operators' webhook, outside of the machine; it shares the machine's loopback."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, str, dict[str, str]]] = []
        into = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                into.extend((self.path, one["status"], one["labels"]) for one in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the test looks at `alerts`."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def got(self, at: str, status: str, **wanted: str) -> bool:
        return any(
            (path, said) == (at, status) and wanted.items() <= labels.items()
            for path, said, labels in self.alerts
        )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def watched(bed: Bed, receiver: Receiver) -> Iterator[Bed]:
    """Both servers run as the README sets them up; only ports and waits differ."""
    masks = [bed.root / "etc/systemd/system" / unit for unit in UNITS]
    for mask in masks:
        mask.unlink()
    bed.run("systemctl", "daemon-reload")
    install = [line for line in blocks("sh")[0].splitlines() if not line.startswith("apt ")]
    # Also with a strict umask Prometheus' own user can read its files.
    bed.run("bash", "-euo", "pipefail", "-c", "\n".join(["umask 077", *install]))
    ports = {"prometheus": free_port(), "alertmanager": free_port()}
    changes = {
        "127.0.0.1:8470": f"127.0.0.1:{bed.port}",
        "127.0.0.1:9093": f"127.0.0.1:{ports['alertmanager']}",
        "127.0.0.1:9099": f"127.0.0.1:{receiver.server.server_port}",
        "15s": "1s",
        "group_interval: 1m": "group_wait: 1s\n  group_interval: 2s",
    }
    for name, block in zip(ports, blocks("yaml"), strict=True):
        for ours, theirs in changes.items():
            block = block.replace(ours, theirs)
        bed.write(f"{FOLDER}/{name}.yml", block)
    for name, unit in zip(ports, UNITS, strict=True):
        more = " --cluster.listen-address=" if name == "alertmanager" else ""
        listen = f"--web.listen-address=127.0.0.1:{ports[name]}{more}"
        bed.write(f"/etc/default/{unit.removesuffix('.service')}", f'ARGS="{listen}"\n')
    bed.run("systemctl", "restart", *UNITS)
    yield bed
    bed.try_run("systemctl", "stop", *UNITS)
    for mask in masks:
        mask.symlink_to("/dev/null")
    bed.run("systemctl", "daemon-reload")
    bed.try_run("wa-agent", "delete", "sales")


@pytest.mark.timeout(1200)
def test_the_drill_of_the_readme_ends_as_written(watched: Bed, receiver: Receiver) -> None:
    key = watched.run("stat", "-c", "%a %U %G", f"{FOLDER}/wa-agent.key").split()
    assert key == ["640", "root", "prometheus"]
    alive = {"alertname": "WaDeadMansSwitch"}
    # Prometheus sends an alert that it cannot deliver yet again after a minute.
    watched.until(lambda: receiver.got("/heartbeat", "firing", **alive), within=150)

    watched.run("wa-agent", "create", "sales", "--engine=sandbox", "--set=scan=auto", "--wait=60")
    fault, look, *cure = (line.split() for line in blocks("sh")[1].splitlines())
    watched.run(*fault)
    # `down` begins after five minutes.
    watched.until(lambda: "sales should be connected" in watched.try_run(*look).stdout, within=400)
    assert watched.try_run(*look).returncode == 1
    down = {"kind": "down", "session": "sales", "severity": "warning", "machine": "host1"}
    watched.until(lambda: receiver.got("/alerts", "firing", **down), within=60)

    for command in cure:
        watched.run(*command)
    watched.until(lambda: "sales" not in watched.try_run(*look).stdout, within=60)
    # Two minutes of `keep_firing_for`, then Alertmanager's own wait.
    watched.until(lambda: receiver.got("/alerts", "resolved", **down), within=240)
