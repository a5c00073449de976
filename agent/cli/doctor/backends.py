"""doctor's checks of each backend: its server, and what the agent needs of it on this machine."""

import grp
import os
import pwd
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.backends.declared import one_server
from agent.backends.whaticket.keys import RedisKeys
from agent.cli.doctor.check import Finding, Installation, note, ok, wrong
from agent.cli.doctor.machine import is_booted, unit_words
from agent.config.declaration import BackendDeclaration, hide_secrets, with_secrets
from agent.errors import ConfigError, WaError
from agent.other_user import User, run_as

_ADVICE = {
    "unreachable": "check that it runs, that url is right, and the firewall",
    "timeout": "read its log, it may be overloaded; [[backend]] timeout is the agent's limit",
    "tls": "check that ca_file signed its certificate and that the certificate is still valid",
    "garbage": "another program answers at url, such as a proxy: correct it",
    "not_found": "url leads to another program: correct it",
    "refused_key": "set the right key (or password), then: systemctl restart wa-agent",
    "licence_missing": "activate the licence on the server",
    "failing": "its own log says why it answers with errors",
    "oversized": "its answer is far too large for a list: correct url, or the proxy before it",
}
USER = "wa-agent"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit hides from the agent."""
HOMES = ("/home", "/root", "/run/user")
_READ_ONLY = "BindReadOnlyPaths"
_WAYS = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
_SAMPLES = 5
_SECONDS = 5.0


def servers(here: Installation) -> Iterator[Finding]:
    if not here.config.backend:
        return
    try:
        views = {view["name"]: view for view in here.client.get("/api/backends")["backends"]}
    except WaError:
        return  # the check `agent` says why
    for backend in here.config.backend:
        finding = _server(backend, views.get(backend.name))
        yield replace(finding, check=f"backend {backend.name}")


def surroundings(here: Installation) -> Iterator[Finding]:
    """What the agent must reach on this machine."""
    for backend in here.config.backend:
        for finding in (*_secrets(backend), *_sources(backend, here), *_redis(backend)):
            yield replace(finding, check=f"backend {backend.name}")


def _server(backend: BackendDeclaration, view: Mapping[str, Any] | None) -> Finding:
    if view is None:
        advice = "systemctl restart wa-agent, which reads its backends at a start"
        return note("the running agent has not read it", advice)
    if view["up"] and view.get("warning"):
        advice = "correct logs, log_session and auth_folder of its [[backend]]"
        return wrong(f"it answers, but {view['warning']}", advice)
    if view["up"]:
        total = "?" if view["sessions"] is None else view["sessions"]
        words = f"{backend.engine} {view['version']}".strip()
        return ok(
            f"{words} answers in {view['answer_seconds']:.2f} s; {total} sessions,"
            f" {view['connected']} of our {view['held']} connected"
        )
    advice = _ADVICE.get(view["reason"], f"wa-agent backends check {backend.name}")
    return wrong(f"{view['sentence'] or 'it is not up'}", advice)


def open_file(here: Installation) -> Iterator[Finding]:
    """Keys in agent.toml need a file that only its user can read."""
    config, file = here.config, here.file
    holders = [backend.name for backend in config.backend if hide_secrets(backend) != backend]
    try:
        open_to_all = file is not None and bool(file.stat().st_mode & 0o004)
    except OSError:
        return
    if holders and open_to_all:
        names = ", ".join(holders)
        advice = f"chmod o-rwx {file}, or use key_file and password_file"
        yield wrong(f"{file} holds keys ({names}) and is open to every user", advice)


def one_server_twice(here: Installation) -> Iterator[Finding]:
    return map(wrong, one_server(here.config.backend))


def _secrets(backend: BackendDeclaration) -> Iterator[Finding]:
    settings = backend.flat()
    for path in filter(None, (settings.get("key_file"), settings.get("password_file"))):
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except OSError:
            continue  # with_secrets says why
        if mode & 0o004:
            yield wrong(f"{path} is open to every user", f"chmod o-rwx {path}")
    try:
        with_secrets(backend)
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            yield note(str(error), "run doctor as root: the agent may have the right")
        else:
            yield wrong(str(error), "correct it, then: systemctl restart wa-agent")


# --- what the agent must reach on this machine -----------------------------------------------


def _sources(backend: BackendDeclaration, here: Installation) -> Iterator[Finding]:
    settings = backend.flat()
    files = [backend.ca_file] if backend.ca_file else []
    for source in settings.get("logs", ()):
        kind, _, what = source.partition(":")
        if kind == "command":
            yield from _command(what)
        else:
            files.append(str(Path(what).parent) if set(what) & set("*?[") else what)
    for file in files:
        yield from _path(here, Path(file), write=False)
    if template := settings.get("auth_folder"):
        pattern = Path(template)
        yield from _path(here, pattern.parent, write=False)
        folders = sorted(pattern.parent.glob(pattern.name.replace("{id}", "*")))
        if not folders:
            advice = "check the path: a paired session has a folder there"
            yield note(f"no folder matches {template}", advice)
        for folder in folders[:_SAMPLES]:  # a repair removes a peer's files
            yield from _path(here, folder, write=True)


def _path(here: Installation, path: Path, *, write: bool) -> Iterator[Finding]:
    words, unit = "write in" if write else "read", unit_lines(path, write=write)
    try:
        path.stat()
        name, user = user_of(here)
        may = _allows(user, path, "rwx" if write else "rx" if path.is_dir() else "r")
    except PermissionError:
        yield note(f"cannot tell whether the agent may {words} {path}", "run doctor as root")
        return
    except OSError as error:
        yield wrong(f"{path}: {error.strerror}", "correct the path in its [[backend]]")
        return
    if not may:
        grant = f"u:{name}:{'rwX' if write else 'rX'}"
        advice = f'give it the right: setfacl -R -m {grant} -m d:{grant} "{path}"'
        yield wrong(f"{name} may not {words} {path}", advice)
    elif here.installed and is_booted() and not _shown(path, write=write):
        yield wrong(f"the agent's unit does not let it {words} {path}", unit)
    else:
        yield ok(f"{name} may {words} {path}")


def user_of(here: Installation) -> tuple[str, User]:
    """The agent's user with the groups of its unit; before its first start this one."""
    try:
        row = pwd.getpwnam(USER) if here.installed else pwd.getpwuid(here.state.stat().st_uid)
    except (KeyError, OSError):
        me = os.geteuid()
        return f"user {me}", User(me, os.getegid(), tuple(os.getgroups()))
    groups = set(os.getgrouplist(row.pw_name, row.pw_gid))
    for name in unit_words("SupplementaryGroups") if here.installed else ():
        with suppress(KeyError):
            groups.add(int(name) if name.isdigit() else grp.getgrnam(name).gr_gid)
    return row.pw_name, User(row.pw_uid, row.pw_gid, tuple(sorted(groups)))


def _allows(user: User, path: Path, ways: str) -> bool:
    """PermissionError: only root or the agent can tell."""
    if os.geteuid() == user.uid:
        return all(os.access(path, _WAYS[way]) for way in ways)
    if os.geteuid() != 0:
        raise PermissionError
    tests = (["/usr/bin/test", f"-{way}", str(path)] for way in ways)
    return all(run_as(user, test, within=_SECONDS).status == 0 for test in tests)


def _shown(path: Path, *, write: bool) -> bool:
    """True if the unit lets the agent reach it; it hides some folders and may write in none."""
    words = [*unit_words("BindPaths"), *unit_words("ReadWritePaths" if write else _READ_ONLY)]
    named = any(path.is_relative_to(word.lstrip("-+").partition(":")[0]) for word in words)
    return named or not (write or _is_below(path, HIDDEN))


def unit_lines(path: Path, *, write: bool) -> str:
    """The lines for `systemctl edit wa-agent` with which the unit lets the agent reach the path."""
    bind = "BindPaths" if write else _READ_ONLY
    lines = ["[Service]"]
    if _is_below(path, HOMES):
        lines.append("ProtectHome=tmpfs")  # below what is closed nothing can be shown
    hidden = _is_below(path, HIDDEN)
    lines.append(f'{bind}="-{path}"' if hidden or not write else f'ReadWritePaths="-{path}"')
    return f"systemctl edit wa-agent, with the lines {' · '.join(lines)}; then restart it"


def _is_below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _command(text: str) -> Iterator[Finding]:
    program = shlex.split(text)[0]
    if shutil.which(program) is None:
        yield wrong(f"program {program} is missing", "install it, or correct logs")
    else:
        yield ok(f"{program} is installed")


# --- Redis -----------------------------------------------------------------------------------


def _redis(backend: BackendDeclaration) -> Iterator[Finding]:
    if not (url := backend.flat().get("redis_url")):
        return
    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    redis = RedisKeys(url, timeout=_SECONDS, ca_file=backend.ca_file)
    try:
        with redis.talk("ask it"):
            pass
    except WaError as error:
        cure = "check that it runs, and that redis_url is right and has its password"
        yield wrong(f"Redis at {where}: {error}", cure)
    else:
        yield ok(f"Redis at {where} answers")
