"""doctor's checks of each backend: its server, and what the agent needs of it on this machine."""

import asyncio
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.backends.declared import one_server
from agent.backends.whaticket.keys import RedisKeys
from agent.cli.doctor.access import Agent, agent_of, lines_for
from agent.cli.doctor.check import Finding, Installation, note, ok, wrong
from agent.config.declaration import BackendDeclaration, hide_secrets, with_secrets
from agent.errors import ConfigError, WaError

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
    agent = agent_of(here.state, installed=here.installed)
    for backend in here.config.backend:
        for finding in (*_secrets(backend), *_sources(backend, agent), *_redis(backend)):
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


def _sources(backend: BackendDeclaration, agent: Agent) -> Iterator[Finding]:
    if backend.ca_file:
        yield from _path(agent, Path(backend.ca_file), "r")
    settings = backend.flat()
    for source in settings.get("logs", ()):
        kind, _, what = source.partition(":")
        if kind == "command":
            yield from _command(what)
        elif any(sign in what for sign in "*?["):
            yield from _path(agent, Path(what).parent, "rx")
        else:
            yield from _path(agent, Path(what), "r")
    if folders := settings.get("auth_folder"):
        yield from _auth_folders(agent, folders)


def _auth_folders(agent: Agent, template: str) -> Iterator[Finding]:
    """A repair removes a peer's files: it needs the right to write in a session's folder."""
    pattern = Path(template)
    findings = list(_path(agent, pattern.parent, "rx"))
    yield from findings
    if any(finding.level == "wrong" for finding in findings):
        return
    try:
        folders = sorted(pattern.parent.glob(pattern.name.replace("{id}", "*")))
    except OSError:
        return
    if not folders:
        advice = "check the path: a paired session has a folder there"
        yield note(f"no folder matches {template}", advice)
    for folder in folders[:_SAMPLES]:
        yield from _path(agent, folder, "rwx")


def _path(agent: Agent, path: Path, ways: str) -> Iterator[Finding]:
    try:
        path.stat()
    except PermissionError:
        yield note(f"cannot check {path}", "run doctor as root")
        return
    except OSError as error:
        yield wrong(f"{path}: {error.strerror}", "correct the path in its [[backend]]")
        return
    may, write = [agent.may(path, way) for way in ways], "w" in ways
    words, unit = "write in" if write else "read", lines_for(path, write=write)
    if None in may:
        yield note(f"cannot tell whether {agent.name} may {words} {path}", "run it as root")
    elif not all(may):
        grant = f"u:{agent.name}:{'rwX' if write else 'rX'}"
        advice = f'give it the right: setfacl -R -m {grant} -m d:{grant} "{path}"'
        yield wrong(f"{agent.name} may not {words} {path}", advice)
    elif not agent.sees(path):
        yield wrong(f"{path} is hidden from the agent by its unit", unit)
    elif write and not agent.may_change(path):
        yield wrong(f"{path} is read-only for the agent by its unit", unit)
    else:
        yield ok(f"{agent.name} may {words} {path}")


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

    async def talk() -> None:
        async with RedisKeys(url, timeout=_SECONDS / 3, ca_file=backend.ca_file).talk("ask it"):
            pass

    try:
        asyncio.run(talk())
    except WaError as error:
        cure = "check that it runs, and that redis_url is right and has its password"
        yield wrong(f"Redis at {where}: {error}", cure)
    else:
        yield ok(f"Redis at {where} answers")
