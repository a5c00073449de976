"""Plan of a fleet: for each machine one file with all that it needs to join.

A CA of the fleet's own signs one certificate for each machine, which serves and asks: etcd's JSON
gateway shows it to its own member. The CA's key and the fleet's key never reach the store.
"""

import asyncio
import io
import ipaddress
import json
import os
import re
import secrets
import ssl
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from agent.core.model import parse_instance_id
from agent.errors import HostError, InvalidRequest, NotFound, Refused
from agent.fleet.etcd import Etcd
from agent.fleet.store import StoreAway

CLIENTS, PEERS, AGENTS = 2379, 2380, 8475
"""Ports of an etcd member for the agents, and for the other members; of an agent for the others."""
ETCD = "/etc/wa-agent-etcd"
"""Folder of a member's certificates, for etcd's user."""
KEYS = ("ca.pem", "machine.pem", "machine.key", "fleet.key")
FILES = (*KEYS, "fleet.toml", "etcd")
"""Files of a plan: certificates and keys, the table of agent.toml, /etc/default/etcd."""
PATIENCE = 20
"""Seconds in which etcd must take a change of its members."""
LARGEST = 1 << 20
"""Bytes of a plan, and of each file in it."""
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
        _openssl(work, "ca", *_with(*_CA_USE), "-subj", f"/CN=wa-agent fleet {fleet}")
        key, token = os.urandom(32), secrets.token_hex(16)
        members = ",".join(f"{name}={_url(it, PEERS)}" for name, it in addresses.items())
        store = [_url(it, CLIENTS) for it in addresses.values()]
        for path, (name, address) in zip(paths, addresses.items(), strict=True):
            etcd = member_settings(name, address, members, token)
            _write(path, work, address, name=f"{fleet}/{name}", store=store, key=key, etcd=etcd)
        _create(folder / "ca.key", (work / "ca.key").read_bytes())
    return [*paths, folder / "ca.key"]


async def replace(folder: Path, old: str, new: str, address: str) -> list[str]:
    """The etcd of `folder`, where its plan was made, loses member `old` and gets member `new`, for
    which plan-NEW.tar is written; returns what `[fleet] store` is from now on. Cut off it can be
    done again."""
    parse_instance_id(new)
    _check_address(new, address)
    path, peer = folder / f"plan-{new}.tar", _url(address, PEERS)
    plans = [it for it in sorted(folder.glob("plan-*.tar")) if it.name != f"plan-{old}.tar"]
    if path.exists() or not (plans and (folder / "ca.key").exists()):
        cause = f"{path} exists" if path.exists() else f"{folder} has no ca.key and plans"
        raise Refused(f"cannot replace {old}: {cause}; name the plan's folder with --plans")
    files = unpack(plans[0].read_bytes())
    table = tomllib.loads(files["fleet.toml"].decode())["fleet"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name in KEYS:
            (work / name).write_bytes(files[name])
        (work / "ca.key").write_bytes((folder / "ca.key").read_bytes())
        tls = ssl.create_default_context(cafile=work / "ca.pem")
        tls.load_cert_chain(work / "machine.pem", work / "machine.key")
        etcd = Etcd(table["store"], tls)
        try:
            members = await etcd.members()
            gone = [it for it in members if it.name == old]
            added = any(peer in it.peers and it.name in ("", new) for it in members)
            if not (gone or added or (folder / f"plan-{old}.tar").exists()):
                raise NotFound(f"cannot replace {old}: etcd has no member of that name")
            for it in gone:
                if await etcd.is_well(it):
                    raise Refused(f"cannot replace {old}: its member of etcd runs; stop it first")
                await _patiently(partial(etcd.remove_member, it.id))
            if not added:
                await _patiently(partial(etcd.add_member, peer))
            members = await etcd.members()
        finally:
            await etcd.close()
        urls = ((it, url) for it in members for url in it.peers)
        named = ((url, new if url == peer else it.name or it.id) for it, url in urls)
        store = sorted({*(url for it in members for url in it.clients), _url(address, CLIENTS)})
        every = ",".join(f"{name}={url}" for url, name in named)
        settings = member_settings(new, address, every, "", "existing")
        known, key = f"{table['name'].partition('/')[0]}/{new}", files["fleet.key"]
        _write(path, work, address, name=known, store=store, key=key, etcd=settings)
    return store


async def _patiently(change: Callable[[], Awaitable[None]]) -> None:
    """etcd changes its members when those that it has were connected for 5 s."""
    for left in range(PATIENCE, -1, -1):
        try:
            await change()
            return
        except StoreAway:
            if not left:
                raise
            await asyncio.sleep(1)


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of a plan, which has no others."""
    found = dict[str, bytes]()
    try:
        with tarfile.open(fileobj=io.BytesIO(content[:LARGEST]), mode="r:") as archive:
            for member in archive:
                part = archive.extractfile(member) if member.name in FILES else None
                if part is None:
                    raise ValueError(f"{member.name!r:.80} is no part of a plan")
                found[member.name] = part.read(LARGEST)
        tables = tomllib.loads(found["fleet.toml"].decode())
        good = found.keys() == {*FILES} and tables.keys() == {"fleet"}
        good = good and tables["fleet"].keys() == {"store", "name", "address"}
        if not good or not re.fullmatch(rb"(ETCD_[A-Z_]+=[!-~]*\n)+", found["etcd"]):
            raise ValueError("it is not whole")
    except (tarfile.TarError, ValueError, KeyError, AttributeError) as error:
        cause = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise InvalidRequest(f"cannot use this plan: {cause}", code="no_plan") from error
    return found


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


def address_of(name: str, address: str) -> str:
    """HOST:PORT of an agent; InvalidRequest where it is no address."""
    _check_address(name, address)
    return _url(address, AGENTS).removeprefix("https://")


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
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-days", "3650", *options, *out]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"cannot run openssl: {error.strerror}; install it") from error
    if done.returncode:
        raise HostError(f"cannot make a certificate: {done.stderr.strip()[-300:]}")


def _write(
    path: Path, work: Path, address: str, *, name: str, store: list[str], key: bytes, etcd: str
) -> None:
    """One machine's plan, with a certificate by the CA in `work`; `name`: FLEET/MACHINE."""
    machine = name.partition("/")[2]
    uses = ("basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth")
    at = f"subjectAltName=IP:{address},IP:127.0.0.1"
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={machine}")
    _openssl(work, "new", *_with(*uses, at), *signed)
    reached = address_of(machine, address)
    fleet = f'[fleet]\nstore = {json.dumps(store)}\nname = "{name}"\naddress = "{reached}"\n'
    certificates = [(work / it).read_bytes() for it in ("ca.pem", "new.pem", "new.key")]
    contents = (*certificates, key, fleet.encode(), etcd.encode())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for part, content in zip(FILES, contents, strict=True):
            member = tarfile.TarInfo(part)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    _create(path, packed.getvalue())


def _create(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
