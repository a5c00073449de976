"""The doctor's checks of each backend: what the agent says of it, its secrets, its Redis."""

import os
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
from agent.config.declaration import BackendDeclaration, hide_secrets, with_secrets
from agent.errors import ConfigError, WaError

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
        for finding in (*server, *_secrets(its), *_redis(its)):
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
        advice = (
            "correct logs, log_session and auth_folder of its [[backend]], or give wa-agent and its"
            " unit the right: Access in agent/backends/README.md"
        )
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
