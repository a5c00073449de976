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
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

from agent.core.setting import name_fault
from agent.errors import HostError, InvalidRequest, NotFound, Refused
from agent.files import write_whole
from agent.fleet.etcd import Etcd, StoreAway
from agent.fleet.peers import tls_of

CLIENTS, PEERS, AGENTS = 2379, 2380, 8475
"""Ports of an etcd member for the agents, and for the other members; of an agent for the others."""
ETCD = "/etc/wa-agent-etcd"
"""Folder of a member's certificates, for etcd's user."""
KEYS = ("ca.pem", "machine.pem", "machine.key", "fleet.key")
FILES = (*KEYS, "fleet.toml", "etcd")
"""Files of a plan: certificates and keys, the table of agent.toml, /etc/default/etcd."""
LARGEST = 1 << 20
"""Bytes of a plan, and of each file in it."""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650")
_SIGNED = ("-CA", "ca.pem", "-CAkey", "ca.key")
_CA_USE = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")


def plan(fleet: str, addresses: Mapping[str, str], folder: Path) -> list[Path]:
    """Write plan-MACHINE.tar for each machine, and ca.key, which a machine that is added later
    needs; returns their paths. Nothing is replaced."""
    if fault := name_fault(fleet):
        raise InvalidRequest(f"cannot plan a fleet of that name: {fault}")
    paths = [folder / f"plan-{name}.tar" for name in addresses]
    for path in (*paths, folder / "ca.key"):
        if path.exists():
            raise Refused(f"cannot plan a fleet: {path} exists; name another folder with --out")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        _openssl(work, "ca", _CA_USE, "-subj", f"/CN=wa-agent fleet {fleet}")
        key, token = os.urandom(32), os.urandom(16).hex()
        members = ",".join(f"{name}={_url(it, PEERS)}" for name, it in addresses.items())
        store = [_url(it, CLIENTS) for it in addresses.values()]
        for path, (name, address) in zip(paths, addresses.items(), strict=True):
            etcd = member_settings(name, address, members, token)
            _write(path, work, address, name=f"{fleet}/{name}", store=store, key=key, etcd=etcd)
        write(folder / "ca.key", (work / "ca.key").read_bytes())
    return [*paths, folder / "ca.key"]


async def replace(folder: Path, old: str, new: str, address: str) -> list[str]:
    """The etcd of `folder`, where its plan was made, loses member `old` and gets member `new`, for
    which plan-NEW.tar is written; returns what `[fleet] store` is from now on. Cut off it can be
    done again, between the two with `etcdctl member add`, as the refusal says."""
    path, of_old = (folder / f"plan-{it}.tar" for it in (new, old))
    peer, theirs = _url(address, PEERS), ""
    plans = [it for it in sorted(folder.glob("plan-*.tar")) if it != of_old]
    if path.exists():
        raise Refused(f"cannot replace {old}: {path} exists; use it as it is, or remove it first")
    if not (plans and (folder / "ca.key").exists()):
        cause = f"{folder} has no ca.key and plans; name the plan's folder with --plans"
        raise Refused(f"cannot replace {old}: {cause}")
    if not os.access(folder, os.W_OK):
        raise Refused(f"cannot replace {old}: this user may not write in {folder}")
    if of_old.exists():  # one that never started has no name in etcd
        theirs = settings_of(unpack(of_old.read_bytes()))["ETCD_INITIAL_ADVERTISE_PEER_URLS"]
    files = unpack(plans[0].read_bytes(), plans[0])
    table = tomllib.loads(files["fleet.toml"].decode())["fleet"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name in KEYS:
            (work / name).write_bytes(files[name])
        (work / "ca.key").write_bytes((folder / "ca.key").read_bytes())
        _openssl(work, "try", (), *_SIGNED, "-subj", "/CN=try")  # before etcd changes
        async with aclosing(Etcd(table["store"], tls_of(work))) as etcd:
            members = await etcd.members()
            gone = [it for it in members if it.name == old or (not it.name and theirs in it.peers)]
            holders = {it.name for it in members if peer in it.peers and it not in gone}
            added = bool(holders & {"", new})
            if others := ", ".join(holders - {"", new}):
                raise Refused(f"cannot replace {old}: {address} is the address of {others}")
            if not (gone or added):
                every = ", ".join(f"{it.name or it.peers[0]} ({int(it.id):x})" for it in members)
                cause = f"etcd has no member of that name, but {every}; to take one out: etcdctl"
                cause += f" member remove ID; if this was cut off: etcdctl member add {new}"
                raise NotFound(f"cannot replace {old}: {cause} --peer-urls={peer}, and once more")
            for it in gone:
                if await etcd.is_well(it):
                    raise Refused(f"cannot replace {old}: its member of etcd runs; stop it first")
                await _patiently(etcd, "remove", {"ID": it.id})
            if not added:
                await _patiently(etcd, "add", {"peerURLs": [peer]})
            members = await etcd.members()
        urls = ((it, url) for it in members for url in it.peers)
        store = sorted({*(url for it in members for url in it.clients), _url(address, CLIENTS)})
        every = ",".join(f"{new if url == peer else it.name or it.id}={url}" for it, url in urls)
        token = settings_of(files)["ETCD_INITIAL_CLUSTER_TOKEN"]
        settings = member_settings(new, address, every, token, "existing")
        known, key = f"{table['name'].partition('/')[0]}/{new}", files["fleet.key"]
        _write(path, work, address, name=known, store=store, key=key, etcd=settings)
    return store


async def _patiently(etcd: Etcd, how: str, member: object) -> None:
    """etcd changes its members when those that it has were connected for 5 s: 20 s at most."""
    print(f"etcd {how}s a member once all are connected: up to 21 s", file=sys.stderr, flush=True)
    for left in range(20, -1, -1):
        try:
            await etcd.members(how, member)
            return
        except StoreAway as error:
            if not left:
                cure = "it may be done once all run; one that never will: etcdctl member remove ID"
                raise StoreAway(f"{error}; {cure}") from error
            await asyncio.sleep(1)


def unpack(content: bytes, what: object = "this plan") -> dict[str, bytes]:
    """Return the files of a plan, which has no others."""
    found = dict[str, bytes]()
    try:
        with tarfile.open(fileobj=io.BytesIO(content[:LARGEST]), mode="r:") as archive:
            for member in archive:
                part = archive.extractfile(member) if member.name in FILES else None
                if part is None:
                    raise ValueError(f"{member.name!r:.80} is no part of a plan")
                found[member.name] = part.read(LARGEST)
        tables = tomllib.loads(found.get("fleet.toml", b"").decode())
        good = found.keys() == {*FILES} and tables.keys() == {"fleet"}
        good = good and tables["fleet"].keys() == {"store", "name", "address"}
        if not good or not re.fullmatch(rb"(ETCD_[A-Z_]+=[!-~]*\n)+", found["etcd"]):
            raise ValueError("it is not whole")
    except (tarfile.TarError, ValueError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"cannot use {what}: {error}", code="no_plan") from error
    return found


def settings_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the settings of /etc/default/etcd as a plan has them."""
    return dict(it.split("=", 1) for it in files["etcd"].decode().splitlines())


def member_settings(name: str, address: str, members: str, token: str, state: str = "new") -> str:
    """Return the text of /etc/default/etcd of one member."""
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


def machine_of(text: str) -> tuple[str, str]:
    """Return name and address of a machine, from NAME=ADDRESS."""
    name, _, address = text.partition("=")
    fault = name_fault(name) or "NAME=ADDRESS, an IP address that others reach"
    with suppress(ValueError):
        ip = ipaddress.ip_address(address)
        odd = ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_reserved
        if not (odd or ip.is_link_local or "%" in address or name_fault(name)):
            return name, str(ip)
    raise InvalidRequest(f"cannot use {text!r:.80}: {fault}")


def reached(address: str) -> str:
    """Return HOST:PORT of an agent."""
    return _url(address, AGENTS).removeprefix("https://")


def write(path: Path, content: bytes, *, mode: int = 0o600, group: int | None = None) -> None:
    """Write a whole file or none; a refusal names it."""
    try:
        write_whole(path, content, mode=mode, group=group)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror or error}") from error


def _openssl(folder: Path, name: str, extensions: Iterable[str], *options: str) -> None:
    """Make NAME.key and its certificate NAME.pem."""
    extended = [word for it in extensions for word in ("-addext", it)]
    out = (*extended, *options, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    run("make a certificate with ca.key", "openssl", "req", "-x509", *_NEW_KEY, *out, cwd=folder)


def run(doing: str, *command: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"cannot run {command[0]}: {error.strerror}; install it") from error
    if done.returncode:
        raise HostError(f"cannot {doing}: {done.stderr.strip()[-300:]}")


def _write(
    path: Path, work: Path, address: str, *, name: str, store: list[str], key: bytes, etcd: str
) -> None:
    """Write one machine's plan, with a certificate by the CA in `work`; `name`: FLEET/MACHINE."""
    uses = ("basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth")
    subject = ("-subj", f"/CN={name.partition('/')[2]}")
    _openssl(work, "new", (*uses, f"subjectAltName=IP:{address},IP:127.0.0.1"), *_SIGNED, *subject)
    fleet = f'[fleet]\nstore = {json.dumps(store)}\nname = "{name}"\n'
    fleet += f'address = "{reached(address)}"\n'
    certificates = [(work / it).read_bytes() for it in ("ca.pem", "new.pem", "new.key")]
    contents, packed = (*certificates, key, fleet.encode(), etcd.encode()), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for part, content in zip(FILES, contents, strict=True):
            member = tarfile.TarInfo(part)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    write(path, packed.getvalue())
