"""The doctor's checks of each backend: its server, and what the agent needs of it here."""

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

from agent.backends.declared import ADVICE as ONE_SERVER
from agent.backends.declared import one_server
from agent.backends.whaticket.keys import RedisKeys
from agent.cli.doctor.command import Finding, Installation, note, ok, wrong
from agent.cli.doctor.installation import is_booted, unit_words
from agent.config.declaration import BackendDeclaration, hide_secrets, with_secrets
from agent.errors import ConfigError, WaError
from agent.other_user import User, run_as

USER = "wa-agent"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit hides from the agent."""
HOMES = HIDDEN[:3]
_READ_ONLY = "BindReadOnlyPaths"
_WAYS = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
_SAMPLES = 5
_SECONDS = 5.0


def backends(here: Installation) -> Iterator[Finding]:
    declared, views = here.config.backend, None
    holders = [its.name for its in declared if hide_secrets(its) != its]
    if here.file is not None and holders and _is_open(here.file):
        sentence = f"{here.file} holds keys ({', '.join(holders)}) and is open to every user"
        advice = f"chmod o-rwx {here.file}, or use key_file and password_file"
        yield wrong(sentence, advice, check="config")
    for sentence in one_server(declared):
        yield wrong(sentence, ONE_SERVER, check="config")
    if declared:
        with suppress(WaError):  # the check `agent` says why
            views = {view["name"]: view for view in here.client.get("/api/backends")["backends"]}
    for its in declared:
        server = [] if views is None else [_server(its, views.get(its.name))]
        for finding in (*server, *_secrets(its), *_sources(its, here), *_redis(its)):
            yield replace(finding, check=f"backend {its.name}")


def _is_open(path: Path) -> bool:
    with suppress(OSError):  # reading it reports the error
        return bool(path.stat().st_mode & 0o004)
    return False


def _server(backend: BackendDeclaration, view: Mapping[str, Any] | None) -> Finding:
    if view is None:
        advice = "systemctl restart wa-agent, which reads its backends at a start"
        return note("the running agent has not read it", advice)
    if not view["up"]:
        words = "see that it runs, and that url, key, ca_file and timeout are right"
        advice = f"{words}; then wa-agent backends check {backend.name}"
        return wrong(view["sentence"] or "it is not up", advice)
    if view.get("warning"):
        advice = "correct logs, log_session and auth_folder of its [[backend]]"
        return wrong(f"it answers, but {view['warning']}", advice)
    total = "?" if view["sessions"] is None else view["sessions"]
    words = f"{backend.engine} {view['version']}".strip()
    return ok(
        f"{words} answers in {view['answer_seconds']:.2f} s; {total} sessions,"
        f" {view['connected']} of our {view['held']} connected"
    )


def _secrets(backend: BackendDeclaration) -> Iterator[Finding]:
    settings = backend.flat()
    for path in filter(None, (settings.get("key_file"), settings.get("password_file"))):
        if _is_open(Path(path)):
            yield wrong(f"{path} is open to every user", f"chmod o-rwx {path}")
    try:
        with_secrets(backend)
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            yield note(str(error), "run doctor as root: the agent may have the right")
        else:
            yield wrong(str(error), "correct it, then: systemctl restart wa-agent")


def _sources(backend: BackendDeclaration, here: Installation) -> Iterator[Finding]:
    settings = backend.flat()
    files = [backend.ca_file] if backend.ca_file else []
    for source in settings.get("logs", ()):
        kind, _, what = source.partition(":")
        if kind != "command":
            files.append(str(Path(what).parent) if set(what) & set("*?[") else what)
        elif shutil.which(program := shlex.split(what)[0]) is None:
            yield wrong(f"program {program} is missing", "install it, or correct logs")
    for file in files:
        yield _path(here, Path(file), write=False)
    if template := settings.get("auth_folder"):
        pattern = Path(template)
        yield _path(here, pattern.parent, write=False)
        folders = sorted(pattern.parent.glob(pattern.name.replace("{id}", "*")))
        if not folders:
            advice = "check the path: a paired session has a folder there"
            yield note(f"no folder matches {template}", advice)
        for folder in folders[:_SAMPLES]:  # a repair removes a peer's files
            yield _path(here, folder, write=True)


def _path(here: Installation, path: Path, *, write: bool) -> Finding:
    words = "write in" if write else "read"
    try:
        path.stat()
        name, user = user_of(here)
        may = _allows(user, path, "rwx" if write else "rx" if path.is_dir() else "r")
    except PermissionError:
        return note(f"cannot tell whether the agent may {words} {path}", "run doctor as root")
    except OSError as error:
        return wrong(f"{path}: {error.strerror}", "correct the path in its [[backend]]")
    if not may:
        grant = f"u:{name}:{'rwX' if write else 'rX'}"
        advice = f'give it the right: setfacl -R -m {grant} -m d:{grant} "{path}"'
        return wrong(f"{name} may not {words} {path}", advice)
    if here.installed and is_booted() and not _shown(path, write=write):
        advice = unit_lines(path, write=write)
        return wrong(f"the agent's unit does not let it {words} {path}", advice)
    return ok(f"{name} may {words} {path}")


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
    return named or not (write or any(map(path.is_relative_to, HIDDEN)))


def unit_lines(path: Path, *, write: bool) -> str:
    """The lines for `systemctl edit wa-agent` with which the unit lets the agent reach the path."""
    lines = ["[Service]"]
    if any(map(path.is_relative_to, HOMES)):
        lines.append("ProtectHome=tmpfs")  # below what is closed nothing can be shown
    bind = "BindPaths" if write else _READ_ONLY
    if write and not any(map(path.is_relative_to, HIDDEN)):
        bind = "ReadWritePaths"
    lines.append(f'{bind}="-{path}"')
    return f"systemctl edit wa-agent, with the lines {' · '.join(lines)}; then restart it"


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
