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

MOST = 9
Processes = list[subprocess.Popen[bytes]]


def main(argv: list[str]) -> int:
    count = int(argv[0]) if argv and argv[0].isdecimal() else 0
    if not 2 <= count <= MOST:
        print(f"cannot try a fleet: name 2 to {MOST} machines, as --fleet 3", file=sys.stderr)
        return 2
    if shutil.which("etcd") is None:
        print("cannot try a fleet: no etcd here; sudo apt install etcd-server", file=sys.stderr)
        return 1
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
        ports = [held.enter_context(it).getsockname()[1] for it in servers]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    clients, peers = urls[::4], urls[1::4]
    cluster = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    key = os.urandom(32)

    def run(name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (root / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    for name, client, peer in zip(names, clients, peers, strict=True):
        options = {
            **{"name": name, "data-dir": f"{root}/etcd-{name}", "initial-cluster": cluster},
            **{"listen-client-urls": client, "advertise-client-urls": client},
            **{"listen-peer-urls": peer, "initial-advertise-peer-urls": peer},
        }
        command = ["etcd", *(f"--{it}={value}" for it, value in options.items())]
        members.append(run(f"etcd-{name}", command))
        print(f"etcd of {name}   {client}   kill -9 {members[-1].pid}")
    for at, name in enumerate(names):
        http, address = urls[4 * at + 2], urls[4 * at + 3].removeprefix("http://")
        state, config = root / name, root / f"{name}.toml"
        (state / "fleet").mkdir(mode=0o700, parents=True)
        (state / "fleet/fleet.key").touch(0o600)
        (state / "fleet/fleet.key").write_bytes(key)
        config.write_text(
            f'[agent]\nhost = "process"\nstate_path = "{state}"\n'
            f'[api]\ntrust_loopback = true\nlisten = "{http.removeprefix("http://")}"\n'
            f'[fleet]\nstore = {json.dumps(clients)}\nname = "trying/{name}"\n'
            f'address = "{address}"\n[[instance]]\nid = "shop-{name}"\nengine = "sandbox"\n'
        )
        command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
        agents.append(run(name, command))
        print(f"agent {name}     {http}/  kill -9 {agents[-1].pid}")
    status = f"{Path(sys.executable).with_name('wa-agent')} fleet status"
    print(f"Look:        WA_AGENT_SOCKET={root}/a/api.sock {status}")
    print(f"Logs:        {root}\nStop:        Ctrl+C", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
