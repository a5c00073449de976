"""Plan of a fleet: for each machine one file with all that it needs to join.

A CA of the fleet's own signs one certificate for each machine, which serves and asks: etcd's JSON
gateway shows it to its own member. The CA's key and the fleet's key never reach the store.
"""

import io
import ipaddress
import os
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agent.core.model import parse_instance_id
from agent.errors import HostError, InvalidRequest, Refused

CLIENTS, PEERS, AGENTS = 2379, 2380, 8475
"""Ports of an etcd member for the agents, and for the other members; of an agent for the others."""
DAYS = "3650"
ETCD = "/etc/wa-agent-etcd"
"""Folder of a member's certificates, for etcd's user."""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_CA_USE = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")


def plan(fleet: str, addresses: Mapping[str, str], folder: Path) -> list[Path]:
    """Write plan-MACHINE.tar for each machine, and ca.key, which a machine that is added later
    needs; returns their paths. Nothing is replaced."""
    parse_instance_id(fleet)
    if len(addresses) < 2 or len({*addresses.values()}) < len(addresses):
        raise InvalidRequest("cannot plan a fleet: name two machines or more, each as NAME=ADDRESS")
    for name, address in addresses.items():
        parse_instance_id(name)
        _check_address(name, address)
    paths = [folder / f"plan-{name}.tar" for name in addresses]
    for path in (*paths, folder / "ca.key"):
        if path.exists():
            raise Refused(f"cannot plan a fleet: {path} exists; name another folder with --out")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        names = ("-subj", f"/CN=wa-agent fleet {fleet}")
        _openssl(work, "ca", *_with(*_CA_USE), *names)
        ca, key, token = (work / "ca.pem").read_bytes(), os.urandom(32), secrets.token_hex(16)
        members = ",".join(f"{name}={_url(it, PEERS)}" for name, it in addresses.items())
        store = ", ".join(f'"{_url(it, CLIENTS)}"' for it in addresses.values())
        for path, (name, address) in zip(paths, addresses.items(), strict=True):
            uses = ("basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth")
            at = f"subjectAltName=IP:{address},IP:127.0.0.1"
            signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={name}")
            _openssl(work, name, *_with(*uses, at), *signed)
            fleet_table = (
                f'[fleet]\nstore = [{store}]\nname = "{fleet}/{name}"\n'
                f'address = "{_url(address, AGENTS)[8:]}"\n'
            )
            _write(
                path,
                {
                    "ca.pem": ca,
                    "machine.pem": (work / f"{name}.pem").read_bytes(),
                    "machine.key": (work / f"{name}.key").read_bytes(),
                    "fleet.key": key,
                    "fleet.toml": fleet_table.encode(),
                    "etcd": member_settings(name, address, members, token).encode(),
                },
            )
        _create(folder / "ca.key", (work / "ca.key").read_bytes())
    return [*paths, folder / "ca.key"]


def member_settings(name: str, address: str, members: str, token: str, state: str = "new") -> str:
    """/etc/default/etcd of one member."""
    client, peer = _url(address, CLIENTS), _url(address, PEERS)
    tls = {"CERT_FILE": "machine.pem", "KEY_FILE": "machine.key", "TRUSTED_CA_FILE": "ca.pem"}
    settings = {
        **{"NAME": name, "DATA_DIR": "/var/lib/etcd/wa-agent"},
        **{"LISTEN_CLIENT_URLS": client, "ADVERTISE_CLIENT_URLS": client},
        **{"LISTEN_PEER_URLS": peer, "INITIAL_ADVERTISE_PEER_URLS": peer},
        **{"INITIAL_CLUSTER": members, "INITIAL_CLUSTER_TOKEN": token},
        **{"INITIAL_CLUSTER_STATE": state, "CLIENT_CERT_AUTH": "true"},
        **{"PEER_CLIENT_CERT_AUTH": "true", "AUTO_COMPACTION_RETENTION": "1"},
        **{"HEARTBEAT_INTERVAL": "250", "ELECTION_TIMEOUT": "2500"},
        **{f"{use}{what}": f"{ETCD}/{it}" for use in ("", "PEER_") for what, it in tls.items()},
    }
    return "".join(f"ETCD_{what}={value}\n" for what, value in settings.items())


def _url(address: str, port: int) -> str:
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _check_address(name: str, address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        cause = f"{address!r} is not an IP address"
        raise InvalidRequest(f"cannot plan machine {name}: {cause}", field=name) from None


def _with(*extensions: str) -> list[str]:
    return [word for it in extensions for word in ("-addext", it)]


def _openssl(folder: Path, name: str, *options: str) -> None:
    """Make NAME.key and its certificate NAME.pem."""
    out = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-days", DAYS, *options, *out]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"cannot run openssl: {error.strerror}; install it") from error
    if done.returncode:
        raise HostError(f"cannot make a certificate: {done.stderr.strip()[-300:]}")


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    _create(path, packed.getvalue())


def _create(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
