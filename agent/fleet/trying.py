"""A fleet on this machine, to try it out: `python -m agent.fleet.trying 3` runs three members of
etcd and three agents, without TLS, in a folder that goes at the end."""

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

Processes = list[subprocess.Popen[bytes]]


def main(argv: list[str]) -> int:
    count = int(argv[0]) if argv and argv[0].isdecimal() else 0
    if not 2 <= count <= 9:
        print("cannot try a fleet: name 2 to 9 machines, as --fleet 3", file=sys.stderr)
        return 2
    if shutil.which("etcd") is None:
        sys.exit("cannot try a fleet: no etcd here; sudo apt install etcd-server")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    agents, members = Processes(), Processes()
    with tempfile.TemporaryDirectory(prefix="wa-fleet-", ignore_cleanup_errors=True) as root:
        try:
            _start(Path(root), "abcdefghi"[:count], agents, members)
            for agent in agents:
                agent.wait()
        except KeyboardInterrupt:
            print("it ends; a worker of an agent that you killed ends with its lease", flush=True)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for processes in (agents, members):
                for process in processes:
                    process.terminate()
                for process in processes:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(30)
                    process.kill()
    return 0


def _start(root: Path, names: str, agents: Processes, members: Processes) -> None:
    with ExitStack() as held:
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(4 * len(names))]
        urls = [f"127.0.0.1:{held.enter_context(it).getsockname()[1]}" for it in servers]
    clients = [f"http://{it}" for it in urls[::4]]
    cluster = ",".join(f"{name}=http://{urls[4 * at + 1]}" for at, name in enumerate(names))
    key = os.urandom(32)

    def run(name: str, command: list[str]) -> int:
        with (root / f"{name}.log").open("wb") as log:
            made = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        (members if name.startswith("etcd") else agents).append(made)
        return made.pid

    for at, name in enumerate(names):
        client, peer, state = clients[at], f"http://{urls[4 * at + 1]}", root / name
        options = f"--name={name} --data-dir={root}/etcd-{name} --initial-cluster={cluster}"
        options += f" --listen-client-urls={client} --advertise-client-urls={client}"
        options += f" --listen-peer-urls={peer} --initial-advertise-peer-urls={peer}"
        pid = run(f"etcd-{name}", ["etcd", *options.split()])
        print(f"etcd of {name}   {client}   kill -9 {pid}")
        (state / "fleet").mkdir(mode=0o700, parents=True)
        (state / "fleet/fleet.key").touch(0o600)
        (state / "fleet/fleet.key").write_bytes(key)
        (root / f"{name}.toml").write_text(
            f'[agent]\nhost = "process"\nstate_path = "{state}"\n'
            f'[api]\ntrust_loopback = true\nlisten = "{urls[4 * at + 2]}"\n'
            f'[fleet]\nstore = {json.dumps(clients)}\nname = "trying/{name}"\n'
            f'address = "{urls[4 * at + 3]}"\n'
            f'[[instance]]\nid = "shop-{name}"\nengine = "sandbox"\n'
        )
    for at, name in enumerate(names):
        pid = run(name, [sys.executable, "-m", "agent", "run", "--config", f"{root}/{name}.toml"])
        print(f"agent {name}     http://{urls[4 * at + 2]}/  kill -9 {pid}")
    status = f"{Path(sys.executable).with_name('wa-agent')} fleet status"
    print(f"Look:        WA_AGENT_SOCKET={root}/a/api.sock {status}")
    print(f"Logs:        {root}\nStop:        Ctrl+C", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
