"""Join: what one machine gets from its plan: its keys below the state folder, `[fleet]` in
agent.toml, and a member of etcd. Each step is harmless when it is done again. And rename: the clone
of a machine becomes an empty one. Its sessions are the original's: their folders go to the trash,
and what waited to be sent goes.

Below a state folder of another user root writes nothing itself: that user could put a link in its
way.
"""

import asyncio
import http.client
import json
import os
import pwd
import re
import socket
import sys
import tomllib
from collections.abc import Collection, Mapping
from contextlib import ExitStack, aclosing, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

from agent import other_user
from agent.config.config import Config
from agent.core.model import JournalEntry
from agent.errors import HostError, Refused, WaError
from agent.files import folder_locked, make_folder
from agent.fleet import etcd, peers, records
from agent.fleet.plan import ETCD, FILES, KEYS, reached, run, settings_of, unpack, write
from agent.fleet.settings import FleetSettings, fleet_of
from agent.host.choose import only_agent, only_of_sessions
from agent.store.database import Store
from agent.vault import folders, identity

SETTINGS = Path("/etc/default/etcd")
_OURS = ("fleet/agent.json", "fleet/orders.json", "outbox.db", "outbox.db-wal", "outbox.db-shm")
HEADER = re.compile(r"^[ \t]*\[[ \t]*fleet[ \t]*\][ \t]*(#.*)?$", re.MULTILINE)


def join(content: bytes, config: Path, state: Path, *, member: bool) -> str:
    """Returns FLEET/MACHINE. `content`: of plan-MACHINE.tar; `config`: agent.toml. It is written
    last: until then the agent is in no fleet. Keys of another fleet refuse before etcd is asked."""
    files, path = own_plan(content), config.resolve()
    text = path.read_text(encoding="utf-8")
    folder, ca = state / "fleet", state / "fleet/ca.pem"
    has_keys = ca.is_file() and not (ca.is_symlink() or folder.is_symlink())
    if has_keys and ca.read_bytes() != files["ca.pem"]:
        cure = f"move it away, and take [fleet] out of {path}, if this machine is to leave that one"
        raise Refused(f"cannot join: {folder} has keys of another fleet; {cure}", code="in_fleet")
    # Within one fleet either store may be the older one: its members say which.
    changed = with_fleet(text, files["fleet.toml"].decode(), path, ["store"] * has_keys)
    if os.geteuid() == 0 and not state.is_dir():
        raise Refused(f"cannot join: {state} is not there yet; start the agent once")
    table = tomllib.loads(changed)["fleet"]
    if tomllib.loads(text).get("fleet", {}).get("store", table["store"]) != table["store"]:
        asyncio.run(_check_members(table["store"], folder, files["etcd"].decode()))
    put_keys(folder, content)
    if member:
        install_member(files)
    rewrite(path, changed)
    return str(table["name"])


async def _check_members(store: list[str], folder: Path, planned: str) -> None:
    """Raise Refused if etcd has an unplanned member. `folder`: of this machine's keys."""
    async with aclosing(etcd.Etcd(store, peers.tls_of(folder))) as it:
        try:
            urls = [url for member in await it.members() for url in member.peers]
        except etcd.StoreAway as error:
            raise etcd.StoreAway(f"{error}; start it, or take out an old [fleet] store") from error
    if new := ", ".join(url for url in urls if url not in planned):
        cure = "write [fleet] store of agent.toml by hand, if it is wrong"
        words = f"cannot join with an old plan: etcd has {new} as a new member; {cure}"
        raise Refused(words, code="old_plan")


def own_plan(content: bytes) -> dict[str, bytes]:
    """Return the files of this machine's plan; Refused if it is another machine's."""
    wanted = settings_of(files := unpack(content))
    host = urlsplit(wanted["ETCD_LISTEN_PEER_URLS"]).hostname or ""
    check_address(f"use the plan of {wanted['ETCD_NAME']}", host)
    return files


def rewrite(config: Path, text: str) -> None:
    write(config, text.encode(), mode=config.stat().st_mode & 0o777, group=config.stat().st_gid)


def with_fleet(text: str, lines: str, path: Path, changes: Collection[str]) -> str:
    """agent.toml with these lines in its [fleet], and each other line as it is. Refused where one
    of them is there with another value, unless it is one of `changes`."""
    if other_user.owner_of(path.parent) is not None:
        raise Refused(f"cannot write {path} as root: its folder is another user's; be that user")
    tables, fleet = tomllib.loads(text), tomllib.loads(lines)["fleet"]
    own: Mapping[str, object] = tables.get("fleet", {})
    for key in sorted(own.keys() & fleet.keys() - {*changes}):
        if own[key] != fleet[key]:
            words = f"{path} has another [fleet] {key}: {own[key]!r:.80}; take that out first"
            raise Refused(f"cannot join {fleet['name']}: {words}", code="in_fleet")
    if {**own, **fleet} == own:
        return text
    if (found := HEADER.search(text)) is None:
        text += "\n[fleet]\n"
    at = found.end() if found else len(text) - 1
    before, rest = text[:at], text[at:]
    end = found.start() if (found := re.search(r"^[ \t]*\[", rest, re.MULTILINE)) else len(rest)
    line = re.compile(rf"^[ \t]*({'|'.join(fleet)})[ \t]*=.*\n?", re.MULTILINE)
    new = lines.splitlines()[1:]
    made = "\n".join((before, *new)) + line.sub("", rest[:end]) + rest[end:]
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(made) == {**tables, "fleet": {**own, **fleet}}:
            return made
    words = f"cannot see where [fleet] of {path} is; write these lines there"
    raise Refused(f"{words}: {'; '.join(new)}")


def put_keys(folder: Path, content: bytes) -> None:
    """Write the keys as the user of the state folder."""
    if done_as_owner(folder.parent, f"write the keys into {folder}", folder, feed=content):
        return
    make_folder(folder)
    files = unpack(content)
    for name in KEYS:
        write(folder / name, files[name])


def done_as_owner(state: Path, doing: str, *words: str | Path, feed: bytes = b"") -> bool:
    """Run this module as the user of the state folder. False: that is this user."""
    if (owner := other_user.owner_of(state)) is None:
        return False
    command = (sys.executable, "-I", "-m", "agent.fleet.join", *words)
    if (answer := other_user.run_as(owner, command, within=600.0, feed=feed)).status:
        raise HostError(f"cannot {doing}: {answer.text[-300:]}")
    return True


def install_member(files: Mapping[str, bytes]) -> None:
    """Make etcd.service of this machine this member. Refused if it is another one."""
    try:
        group = pwd.getpwnam("etcd").pw_gid
    except KeyError:
        cure = "sudo apt install etcd-server, or join with --no-store where it has no member"
        raise Refused(f"cannot find etcd on this machine: {cure}") from None
    text = SETTINGS.read_text(encoding="utf-8") if SETTINGS.exists() else ""
    present = [it.strip() for it in text.splitlines() if it.strip() and it.strip()[0] != "#"]
    data, planned = settings_of(files)["ETCD_DATA_DIR"], files["etcd"].decode().splitlines()
    if present != planned if present else os.path.lexists(data) or _holds_keys():
        cause = f"{SETTINGS}, {data} or 127.0.0.1:2379 is another one's, or of an earlier life"
        cause += f"; if of no use: systemctl stop etcd; mv {SETTINGS} /root; rm -rf {data}"
        raise Refused(f"cannot take etcd of this machine into the fleet: {cause}", code="etcd_used")
    (folder := Path(ETCD)).mkdir(mode=0o755, exist_ok=True)
    for name in FILES[:3]:
        write(folder / name, files[name], mode=0o640, group=group)
    if not present:
        write(SETTINGS, f"{text}{files['etcd'].decode()}".encode(), mode=0o644)
    # The first member of a new cluster is ready when the second one has started.
    for words in ("enable",), ("start" if present else "restart", "--no-block"):
        run(f"{words[0]} etcd.service", "systemctl", *words, "etcd.service")
    failed = "sleep 3; ! systemctl is-failed etcd.service >&2"
    run("start etcd.service (journalctl -u etcd; or join with --no-store)", "sh", "-c", failed)


def check_address(doing: str, host: str) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, 0), family=family).close()
    except OSError as error:
        raise Refused(f"cannot {doing}: {host} is no address of this machine") from error


def _holds_keys() -> bool:
    """True if an etcd with Debian's own settings runs here and is used: without our settings."""
    every = {"key": "AA==", "range_end": "AA==", "count_only": True}
    none = OSError, http.client.HTTPException, ValueError, AttributeError
    with suppress(*none), closing(http.client.HTTPConnection("127.0.0.1", 2379, timeout=2)) as it:
        it.request("POST", "/v3/kv/range", json.dumps(every))
        return bool(json.loads(it.getresponse().read()).get("count", "0") != "0")
    return False


def rename(name: str, address: str, path: Path, config: Config) -> str:
    """Returns FLEET/MACHINE. `path`: of agent.toml. Refused while its agent or a worker runs; cut
    off it can be done again."""
    path, own = path.resolve(), fleet_of(config)
    text, state, root = path.read_text("utf-8"), config.agent.state_path, config.session_root
    if not (fleet := own.name.rpartition("/")[0]):
        raise Refused(f"cannot rename this machine: {path} names no FLEET/MACHINE in [fleet]")
    new, key = f"{fleet}/{name}", records.Keys(fleet).machine(name)
    if len(own.store) > 0 and asyncio.run(_is_known(key, own, state / "fleet")):
        raise Refused(f"cannot rename this machine: its fleet has a machine {name} already")
    check_address("rename this machine", address)
    lines = f'[fleet]\nname = "{new}"\naddress = "{reached(address)}"\n'
    made = with_fleet(text, lines, path, ("name", "address"))
    if not done_as_owner(state, "empty this machine", state, root):
        asyncio.run(empty(state, root))
    rewrite(path, made)
    return new


async def _is_known(key: str, own: FleetSettings, folder: Path) -> bool:
    """True if the store has a machine there, as it has this one, that is not forgotten. `folder`:
    of this machine's keys."""
    async with aclosing(etcd.Etcd(own.store, peers.tls_of(folder))) as store:
        pairs = (await store.read(etcd.Get(key))).found[0]
    found = [records.decoded(it.value, records.Machine) for it in pairs]
    return any(it is None or not it.forgotten for it in found)


async def empty(state: Path, root: Path) -> None:
    """Empty this machine, as the agent's user: its sessions go to the trash."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_agent(state), only_of_sessions(root), ExitStack() as held:
        ids = [it.id for it in identity.scan(root)]
        try:
            for id in ids:
                held.enter_context(folder_locked(root / id))
        except BlockingIOError:
            raise Refused(f"cannot empty this machine: the worker of {id} runs; stop it") from None
        for id in ids:
            folders.retire(root, id, "renamed", follows=False)
        store = await Store.open(state / "agent.db")
        try:
            for row, _ in await store.instances():
                words = "the machine was renamed; its session is in the trash"
                await store.remove(row.id, JournalEntry("deleted", words, instance=row.id))
        finally:
            await store.close()
        for name in (*_OURS, "state-mark.json"):
            (state / name).unlink(missing_ok=True)


if __name__ == "__main__":
    paths = [*map(Path, sys.argv[1:])]
    try:
        asyncio.run(empty(*paths)) if paths[1:] else put_keys(paths[0], sys.stdin.buffer.read())
    except (OSError, WaError) as error:
        sys.exit(str(error))
