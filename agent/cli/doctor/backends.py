"""doctor's look at each backend: the server as its worker tells it, and what the worker needs."""

import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent.cli.client import Client
from agent.cli.doctor.worker_access import Worker, worker_of
from agent.errors import ConfigError, WaError

if TYPE_CHECKING:
    from agent.config import BackendDeclaration, Config
    from agent.host.machine.findings import Finding

_ADVICE = {
    "unreachable": "check that it runs, that url is right, and the firewall",
    "timeout": "read its log, it may be overloaded; [[backend]] timeout is the agent's limit",
    "tls": "check that ca_file signed its certificate and that the certificate is still valid",
    "garbage": "another program answers at url (a proxy's page?): correct it",
    "not_found": "url leads to another program: correct it",
    "refused_key": "set the right key (or password), then: systemctl restart wa-agent",
    "licence_missing": "activate the licence on the server",
    "failing": "its own log says why it answers with errors",
}
_SEEN = "wa-agent backends drop-in {name} prints the rights that its worker needs"
_SAMPLES = 5
_SECONDS = 5.0


def examine(config: "Config", client: Client, file: Path | None) -> "Iterator[Finding]":
    from agent.config import INSTALLED_STATE

    told = _told(client)
    if told is None:
        told = {}  # the check of the agent says why
    else:
        yield from _servers(config, told)
    yield from _open_file(config, file)
    state = config.agent.state_path
    for one in config.backend:
        yield from _secrets(one)
        worker = worker_of(one.name, state, installed=state == INSTALLED_STATE)
        yield from _places(one, worker)
        yield from _redis(one)


def _told(client: Client) -> dict[str, dict[str, Any]] | None:
    try:
        return {one["name"]: one for one in client.get("/api/backends")["backends"]}
    except WaError:
        return None


def _servers(config: "Config", told: Mapping[str, Mapping[str, Any]]) -> "Iterator[Finding]":
    from agent.host.machine.findings import note, ok, wrong

    for one in config.backend:
        check, found = _check(one), told.get(one.name)
        if found is None:
            advice = "systemctl restart wa-agent: it reads its backends at a start"
            yield note(check, "the running agent does not know it", advice)
        elif found["up"] and found.get("warning"):
            advice = "correct logs, log_session and auth_folder of its [[backend]]"
            yield wrong(check, f"it answers, but {found['warning']}", advice)
        elif found["up"]:
            known = "?" if found["sessions"] is None else found["sessions"]
            words = f"{one.engine} {found['version']}".strip()
            yield ok(
                check,
                f"{words} answers in {found['answer_seconds']:.2f} s; {known} sessions,"
                f" {found['connected']} of our {found['held']} connected",
            )
        elif found["worker"] not in ("active", "activating"):
            advice = f"journalctl -u wa-backend@{one.name} says why; wa-agent events -f"
            yield wrong(check, f"its worker is {found['worker']}: {found['sentence']}", advice)
        else:
            advice = _ADVICE.get(found["reason"], f"wa-agent backends check {one.name}")
            yield wrong(check, f"{found['sentence'] or 'it is not up'}", advice)


def _check(one: "BackendDeclaration") -> str:
    return f"backend {one.name}"


def _open_file(config: "Config", file: Path | None) -> "Iterator[Finding]":
    """Keys in agent.toml itself are as safe as that file."""
    from agent.config.backends import hide_secrets
    from agent.host.machine.findings import wrong

    holds = [one.name for one in config.backend if hide_secrets(one) != one]
    try:
        open_to_all = file is not None and bool(file.stat().st_mode & 0o004)
    except OSError:
        return
    if holds and open_to_all:
        names = ", ".join(holds)
        advice = f"chmod o-rwx {file}, or use key_file and password_file"
        yield wrong("config", f"{file} holds keys ({names}) and is open to every user", advice)


def _secrets(one: "BackendDeclaration") -> "Iterator[Finding]":
    from agent.config import secrets_of
    from agent.host.machine.findings import note, wrong

    settings = one.flat()
    for path in filter(None, (settings.get("key_file"), settings.get("password_file"))):
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except OSError:
            continue  # secrets_of says it better
        if mode & 0o004:
            yield wrong(_check(one), f"{path} is open to every user", f"chmod o-rwx {path}")
    try:
        secrets_of(one)
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            yield note(_check(one), str(error), "run doctor as root: the agent may have the right")
        else:
            yield wrong(_check(one), str(error), "correct it, then: systemctl restart wa-agent")


# --- what its worker must reach on this machine ----------------------------------------------


def _places(one: "BackendDeclaration", worker: Worker) -> "Iterator[Finding]":
    if one.ca_file:
        yield from _place(one, worker, Path(one.ca_file), "r")
    settings = one.flat()
    for source in settings.get("logs", ()):
        kind, _, what = source.partition(":")
        if kind == "file":
            yield from _place(one, worker, Path(what), "r")
        elif kind in ("folder", "pm2"):
            yield from _place(one, worker, Path(what), "rx")
        elif kind == "journal":
            yield from _journal(one, worker)
        else:
            yield from _command(one, what)
    if folders := settings.get("auth_folder"):
        yield from _auth_folders(one, worker, folders)


def _auth_folders(one: "BackendDeclaration", worker: Worker, template: str) -> "Iterator[Finding]":
    """A repair removes one peer's files: that takes the right to write in a session's folder."""
    from agent.host.machine.findings import note

    pattern = Path(template)
    found = list(_place(one, worker, pattern.parent, "rx"))
    yield from found
    if any(finding.level == "wrong" for finding in found):
        return
    try:
        folders = sorted(pattern.parent.glob(pattern.name.replace("{id}", "*")))
    except OSError:
        return
    if not folders:
        advice = "check the path: a paired session has a folder there"
        yield note(_check(one), f"no folder matches {template}", advice)
    for folder in folders[:_SAMPLES]:
        yield from _place(one, worker, folder, "rwx")


def _place(one: "BackendDeclaration", worker: Worker, path: Path, ways: str) -> "Iterator[Finding]":
    from agent.host.machine.findings import note, ok, wrong

    check, drop_in = _check(one), _SEEN.format(name=one.name)
    try:
        path.stat()
    except PermissionError:
        yield note(check, f"cannot look at {path}", "run doctor as root")
        return
    except OSError as error:
        yield wrong(check, f"{path}: {error.strerror}", "correct the path in its [[backend]]")
        return
    may = [worker.may(path, way) for way in ways]
    words = "write in" if "w" in ways else "read"
    if None in may:
        yield note(check, f"cannot tell whether {worker.name} may {words} {path}", "run it as root")
    elif not all(may):
        advice = f"give it to the user {worker.name}: setfacl, or a group; {drop_in}"
        yield wrong(check, f"{worker.name} may not {words} {path}", advice)
    elif not worker.sees(path):
        yield wrong(check, f"{path} is hidden from its worker: the unit hides it", drop_in)
    elif "w" in ways and not worker.may_change(path):
        yield wrong(check, f"{path} is read-only for its worker by the unit", drop_in)
    else:
        yield ok(check, f"{worker.name} may {words} {path}")


def _journal(one: "BackendDeclaration", worker: Worker) -> "Iterator[Finding]":
    import grp

    from agent.host.machine.findings import ok, wrong

    groups = set()
    for name in ("systemd-journal", "adm"):
        try:
            groups.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    drop_in = _SEEN.format(name=one.name)
    if shutil.which("journalctl") is None:
        yield wrong(_check(one), "journalctl is not installed", "install systemd, or use file:…")
    elif worker.uid == 0 or groups & {worker.gid, *worker.groups}:
        yield ok(_check(one), f"{worker.name} may read the journal")
    else:
        yield wrong(_check(one), f"{worker.name} may not read the journal", drop_in)


def _command(one: "BackendDeclaration", text: str) -> "Iterator[Finding]":
    from agent.host.machine.findings import ok, wrong

    program = shlex.split(text)[0]
    if shutil.which(program) is None:
        yield wrong(_check(one), f"there is no program {program}", "install it, or correct logs")
    else:
        yield ok(_check(one), f"{program} is there")


# --- Redis -----------------------------------------------------------------------------------


def _redis(one: "BackendDeclaration") -> "Iterator[Finding]":
    from agent.host.machine.findings import note, ok, wrong

    url = one.flat().get("redis_url")
    if not url:
        return
    parts, check = urlsplit(url), _check(one)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    try:
        said = _ping(url)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        yield wrong(
            check, f"Redis at {where}: {cause}", "check that it runs and that redis_url is right"
        )
        return
    if said is None:
        yield note(
            check, f"Redis at {where} can be reached", "doctor does not check its answer over TLS"
        )
    elif said.startswith("+PONG"):
        yield ok(check, f"Redis at {where} answers")
    elif said.startswith(("-NOAUTH", "-WRONGPASS", "-ERR invalid password")):
        yield wrong(check, f"Redis at {where} refuses the agent", "put the password into redis_url")
    else:
        yield wrong(check, f"the program at {where} is no Redis", "correct redis_url")


def _ping(url: str) -> str | None:
    """The answer to PING; None where it would take TLS to ask."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_SECONDS)
        with sock:
            sock.connect(parts.path)
            return _talk(sock, parts.username, parts.password)
    with socket.create_connection((parts.hostname, parts.port or 6379), _SECONDS) as sock:
        return None if parts.scheme == "rediss" else _talk(sock, parts.username, parts.password)


def _talk(sock: socket.socket, user: str | None, password: str | None) -> str:
    answers = 1
    if password:
        answers = 2
        words = ["AUTH", *([unquote(user)] if user else []), unquote(password)]
        sock.sendall(_command_of(words))
    sock.sendall(_command_of(["PING"]))
    raw = b""
    while raw.count(b"\r\n") < answers and len(raw) < 4096 and (piece := sock.recv(4096)):
        raw += piece
    lines = raw.decode(errors="replace").split("\r\n")
    refused = [line for line in lines if line.startswith("-")]
    return refused[0] if refused else lines[answers - 1]


def _command_of(words: list[str]) -> bytes:
    parts = [word.encode() for word in words]
    body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"*%d\r\n" % len(parts) + body
