"""The agent's sockets on a booted machine: a port that is taken, a file that is removed."""

import http.client
import json
import socket
import urllib.request
from collections.abc import Iterator

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet

HTTP = "wa-agent-http.socket"
FILE = "/run/wa-agent/api.sock"


@pytest.fixture
def fleet(bed: Bed) -> Iterator[Fleet]:
    fleet = Fleet(bed, ("p1", "p2"))
    fleet.make()
    yield fleet
    bed.run("systemctl", "reset-failed")
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)
    fleet.until_it_answers()
    for id in fleet.ids:
        fleet.forget(id)


def ready(bed: Bed) -> bool:
    url = f"http://127.0.0.1:{bed.port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(json.load(answer)["ready"])
    except (OSError, http.client.HTTPException):
        return False


def test_s8_sessions_come_back_without_their_port_and_get_it_once_it_is_free(
    bed: Bed, fleet: Fleet
):
    bed.run("systemctl", "stop", AGENT, within=120)
    bed.until(lambda: bed.show(HTTP, "ActiveState") == "inactive")
    with socket.create_server(("127.0.0.1", bed.port)):
        bed.run("systemctl", "start", "wa-agent.socket", AGENT, within=120)
        assert bed.show(HTTP, "ActiveState") == "failed"
        fleet.until_connected()
        address = f"127.0.0.1:{bed.port}"
        words = bed.journal("-u", AGENT, "-o", "cat", "-n", "200")
        assert f"cannot listen on {address}: the address is in use" in words
        found = json.loads(bed.try_run("wa-agent", "doctor", "--json").stdout)["findings"]
        (port,) = [one["sentence"] for one in found if one["check"] == "port"]
        assert address in port
        unix = ("curl", "-s", "--unix-socket", FILE, "http://localhost/readyz")
        assert address in json.loads(bed.run(*unix))["not_listening"]
    bed.until(lambda: ready(bed))
    fleet.until_connected()
    # The next start hands it over as ever, so that no request is refused at the restart after it.
    bed.run("systemctl", "restart", AGENT, within=120)
    assert bed.show(HTTP, "ActiveState") == "active"
    bed.until(lambda: ready(bed))


def test_s9_a_socket_whose_file_was_removed_comes_back(bed: Bed, fleet: Fleet):
    runs = fleet.runs()
    bed.run("rm", FILE)
    bed.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", AGENT)
    fleet.until_it_answers()
    fleet.until_connected()
    assert bed.run("stat", "-c", "%U:%G %a", FILE).strip() == "root:wa-agent 660"
    assert fleet.runs() == runs, "every worker went on"
