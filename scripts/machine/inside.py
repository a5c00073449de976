"""Runs in the emulated machine (standard library only): does the faults, prints what came of them.

Each line of its output is JSON: {"row", "held", "figure"} or {"ack": N} or {"done": PHASE}.
"""

import errno
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 1 << 20
STATE = "/var/lib/wa-agent"
DENIED = """\
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
try: socket.create_connection(listener.getsockname(), 3); print("connected")
except OSError as error: print(error.strerror or "no answer")
"""


class Local(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect("/run/wa-agent/api.sock")


def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    line = Local("localhost")
    try:
        text = json.dumps(body) if body is not None else None
        line.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = line.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        line.close()


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit)


def unit(id: str) -> str:
    return f"wa-instance@{id}.service"


def details(id: str) -> dict[str, Any]:
    found: dict[str, Any] = ask("GET", f"/api/instance/{id}/details")[1]
    return found


def connected(id: str) -> bool:
    return details(id).get("connection_status") == "CONNECTED"


def until(probe: Callable[[], object], within: float = 120.0) -> float:
    """Seconds until it held; raises TimeoutError otherwise."""
    begun = time.monotonic()
    while time.monotonic() - begun < within:
        try:
            if probe():
                return time.monotonic() - begun
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    raise TimeoutError(f"not within {within:g} s")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def row(name: str, shown: Callable[[], tuple[bool, str]]) -> None:
    """One fault: a failure of it is a row too, and the next one goes on."""
    try:
        held, figure = shown()
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        held, figure = False, f"{type(error).__name__}: {error}"
    say(row=name, held=held, figure=figure)


def create(id: str) -> None:
    settings = {"scan": "auto", "scan_after": 0.05}
    status, answer = ask(
        "POST", "/api/instance", {"id": id, "engine": "sandbox", "settings": settings}
    )
    if status >= 300:
        raise OSError(f"cannot create {id}: {answer}")


def out_of_memory() -> tuple[bool, str]:
    agent, neighbour = show("wa-agent.service", "MainPID"), show(unit("m1"), "InvocationID")
    run_before = show(unit("m2"), "InvocationID")
    body = {"fault": "leak", "bytes_per_second": 512 * MIB, "for": 20}
    ask("POST", "/api/instance/m2/sandbox/fault", body)
    until(lambda: show(unit("m2"), "InvocationID") not in ("", run_before))
    ask("POST", "/api/instance/m2/sandbox/fault", {"clear": True})
    took = until(lambda: connected("m2"))
    words = run("journalctl", "-b", "-o", "cat", "-u", unit("m2"))
    killed = "oom-kill" in words or "OOM killer" in words
    same = (show("wa-agent.service", "MainPID"), show(unit("m1"), "InvocationID"))
    group = show(unit("m2"), "ControlGroup")
    peak = Path(f"/sys/fs/cgroup{group}/memory.max").read_text().strip()
    held = killed and same == (agent, neighbour)
    return held, f"killed by the kernel at {peak} bytes; connected {took:.1f} s later"


def clock_steps() -> tuple[bool, str]:
    runs = [show(unit(id), "InvocationID") for id in ("m1", "m2")]
    before = [details(id)["restarts_by_reason"] for id in ("m1", "m2")]
    for step in ("+1 day", "-3 days", "+2 days"):
        run("date", "-s", step)
        time.sleep(20)
        if not (connected("m1") and connected("m2")):
            return False, f"not connected after {step}"
    after = [details(id)["restarts_by_reason"] for id in ("m1", "m2")]
    held = runs == [show(unit(id), "InvocationID") for id in ("m1", "m2")] and before == after
    return held, "+1 day, -3 days, +2 days: no restart, connected 20 s after each"


def address_filter() -> tuple[bool, str]:
    alone = ("systemd-run", "--wait", "--pipe", "-q", "-p")
    told = [
        run(*alone, f"IPAddressDeny={what}", "/usr/bin/python3", "-c", DENIED)
        for what in ("", "localhost")
    ]
    held = told[0] == "connected" and told[1] not in ("", "connected")
    return held, f"without: {told[0]}; IPAddressDeny=localhost: {told[1]}"


def order_of_the_end() -> tuple[bool, str]:
    """Read the orderly power-off of the boot before in its journal."""
    lines = run("journalctl", "-b", "-1", "-o", "short-monotonic", "--no-pager").splitlines()

    def at(*words: str) -> float:
        found = [line for line in lines if all(word in line for word in words)]
        return float(found[-1].partition("[")[2].partition("]")[0])

    workers = [at("systemd", "Stopped", unit(id)) for id in ("m1", "m2")]
    agent = at("systemd", "Stopped", "wa-agent.service")
    begun = at("systemd", "Stopping", unit("m1"))
    held = max(workers) <= agent
    return held, f"workers stopped {max(workers) - begun:.1f} s after the order, then the agent"


def restored() -> tuple[bool, str]:
    took = until(lambda: connected("m1") and connected("m2"), 240)
    paired = all(details(id).get("paired") for id in ("m1", "m2"))
    return paired, f"both connected without a code, {took:.1f} s after the look began"


def read_only() -> tuple[bool, str]:
    runs = [show(unit(id), "InvocationID") for id in ("m1", "m2")]
    Path("/sys/fs/ext4/vdb/trigger_fs_error").write_text("1")
    until(takes_no_write)
    time.sleep(20)
    alive = [show(unit(id), "InvocationID") for id in ("m1", "m2")] == runs
    begun = time.monotonic()
    status, answer = ask("PATCH", "/api/instance/m1", {"settings": {"name": "x"}})
    took = time.monotonic() - begun
    both = connected("m1") and connected("m2")
    held = alive and both and (status, answer["error"]) == (507, "read_only")
    shown = "both connected" if alive and both else "NOT both connected"
    return held, f"{shown} 20 s later; a change: {status} {answer['error']} after {took:.1f} s"


def takes_no_write() -> bool:
    """The flags of the mount do not tell: since 6.1.113 ext4 leaves them as they are."""
    try:
        os.close(os.open(STATE, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def write_on() -> None:
    """Acknowledged changes, one after another, until the power goes."""
    number = 0
    while True:
        number += 1
        status, _ = ask("PATCH", "/api/instance/m1", {"settings": {"name": f"n{number}"}})
        if status < 300:
            say(ack=number)
        if number % 20 == 0:
            create(f"w{number}")
            say(ack=number, made=f"w{number}")


def check_acknowledged(last: int, made: list[str]) -> tuple[bool, str]:
    until(lambda: ask("GET", "/readyz")[0] == 200)
    name = str(details("m1")["settings"]["name"])
    there = {id for id in made if ask("GET", f"/api/instance/{id}")[0] == 200}
    held = int(name[1:] or 0) >= last and there == set(made)
    return held, f"{last} changes acknowledged, m1 is {name}; {len(there)} of {len(made)} new ones"


def main() -> None:
    words = Path("/proc/cmdline").read_text().split()
    told = dict(word.split("=", 1) for word in words if word.startswith("chaos."))
    phase = told["chaos.phase"]
    until(lambda: ask("GET", "/readyz")[0] == 200, 240)
    for id in ("m1", "m2"):
        if ask("GET", f"/api/instance/{id}")[0] == 404:
            create(id)
    if phase == "figures":
        until(lambda: connected("m1") and connected("m2"))
        row("MemoryMax= and the kernel's OOM killer", out_of_memory)
        row("clock steps", clock_steps)
        row("IPAddressDeny=", address_filter)
        say(done=phase)
        subprocess.run(["systemctl", "poweroff"], check=False)
    elif phase == "write":
        row("orderly power-off", order_of_the_end)
        row("boot after it", restored)
        write_on()
    elif phase == "check":
        made = [id for id in told["chaos.made"].split(",") if id]
        row(
            "power cut, a disk that forgets",
            lambda: check_acknowledged(int(told["chaos.last"]), made),
        )
        row("boot after it: pairings", restored)
        row("the disk turns read-only", read_only)
        say(done=phase)
        os.sync()
        subprocess.run(["systemctl", "poweroff", "-f", "-f"], check=False)


if __name__ == "__main__":
    main()
