"""A fleet on this machine, to try it out: `python -m agent.fleet.trying 3` runs three members of
etcd and three agents, without TLS, in a folder that goes at the end, unless an agent that a person
started again runs there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from agent.files import folder_locked, make_folder, write_whole

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str]) -> int:
    count = int(argv[0]) if len(argv) == 1 and argv[0].isdecimal() else 0
    if not 2 <= count <= 9:
        print(
            "cannot try a fleet: --fleet takes a number from 2 to 9, and no other option",
            file=sys.stderr,
        )
        return 2
    if shutil.which("etcd") is None:
        sys.exit("cannot try a fleet: no etcd here; sudo apt install etcd-server")
    for number in ENDS:
        signal.signal(number, signal.default_int_handler)
    processes, root = list[subprocess.Popen[bytes]](), Path(tempfile.mkdtemp(prefix="wa-fleet-"))
    try:
        _start(root, "abcdefghi"[:count], processes)
        for agent in processes[count:]:
            agent.wait()
    except KeyboardInterrupt:
        print("it ends; a worker of an agent that you killed ends with its lease", flush=True)
    finally:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(processes):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        with suppress(BlockingIOError), ExitStack() as held:
            for state in root.glob("?"):
                held.enter_context(folder_locked(state))
            shutil.rmtree(root, ignore_errors=True)
        if root.exists():
            print(f"{root} stays: an agent that you started runs in it")
    return 0


def _start(root: Path, names: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """Start a fleet. `processes` gets the members of etcd, and then the agents."""
    with ExitStack() as held:
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(4 * len(names))]
        urls = [f"127.0.0.1:{held.enter_context(it).getsockname()[1]}" for it in servers]
    clients, peers = [f"http://{it}" for it in urls[::4]], [f"http://{it}" for it in urls[1::4]]
    cluster, key = ",".join(map("{}={}".format, names, peers)), os.urandom(32)

    def run(name: str, *command: str) -> int:
        with (root / f"{name}.log").open("wb") as log:
            made = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        processes.append(made)
        return made.pid

    for name, client, peer in zip(names, clients, peers, strict=True):
        options = f"--name={name} --data-dir={root}/etcd-{name} --initial-cluster={cluster}"
        options += f" --listen-client-urls={client} --advertise-client-urls={client}"
        options += f" --listen-peer-urls={peer} --initial-advertise-peer-urls={peer}"
        pid = run(f"etcd-{name}", "etcd", *options.split())
        print(f"etcd of {name}   {client}   kill -9 {pid}")
    for name, listen, address in zip(names, urls[2::4], urls[3::4], strict=True):
        make_folder(root / name / "fleet")
        write_whole(root / name / "fleet/fleet.key", key)
        (root / f"{name}.toml").write_text(
            f'[agent]\nhost = "process"\nstate_path = "{root}/{name}"\n'
            f'[api]\ntrust_loopback = true\nlisten = "{listen}"\n'
            f'[fleet]\nstore = {json.dumps(clients)}\nname = "trying/{name}"\n'
            f'address = "{address}"\n[[instance]]\nid = "shop-{name}"\nengine = "sandbox"\n'
        )
        pid = run(name, sys.executable, "-m", "agent", "run", "--config", f"{root}/{name}.toml")
        print(f"agent {name}     http://{listen}/  kill -9 {pid}")
    status = f"{Path(sys.executable).with_name('wa-agent')} fleet status"
    print(f"Look:        WA_AGENT_SOCKET={root}/a/api.sock {status}")
    print(f"Logs:        {root}\nStop:        Ctrl+C", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
