"""What pm2 keeps (`pm2 save`), read as rows of [[program]] and instances. It changes nothing."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tomli_w

from agent.engines.program.declaration import ProgramDeclaration, variable_fault
from agent.errors import InvalidRequest

LARGEST = 16 << 20
_SHELLS = re.compile(
    r"PATH|HOME|SHELL|USER|LOGNAME|PWD|OLDPWD|LANG|LC_.*|TERM|SHLVL|MAIL|SSH_.*|XDG_.*|DBUS_.*"
    r"|LS_COLORS|LESS.*|HIST.*|DISPLAY|SUDO_.*|NVM_.*|PM2_.*|_|unique_id|NODE_APP_INSTANCE|name"
)
"""Variables of the shell that `pm2 start` was typed in, and pm2's own."""


@dataclass(slots=True)
class Found:
    """One name in pm2's list, with all processes of that name."""

    name: str
    """pm2's own."""
    program: ProgramDeclaration
    instances: list[str] = field(default_factory=list)
    memory_limit: int = 0
    notes: list[str] = field(default_factory=list)
    """What has no counterpart here."""


def read_dump(raw: bytes, shell: Mapping[str, str]) -> list[Found]:
    """`shell`: a variable that is the same here is none of the bot's."""
    try:
        rows = json.loads(raw)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidRequest("cannot read it: it is no list of pm2's (`pm2 save` writes one)")
    found: dict[str, Found] = {}
    for row in rows:
        name = str(row.get("name", ""))
        if name not in found:
            taken = {its.program.name for its in found.values()}
            found[name] = Found(name, _program(row, _id_of(name, taken), shell))
            found[name].memory_limit = _bytes(row.get("max_memory_restart"))
            found[name].notes = list(_notes(row))
        found[name].instances.append("")
    taken = set()
    for its in found.values():
        count, own = len(its.instances), its.program.name
        for number in range(count):
            wanted = own if count == 1 else f"{own}-{number + 1}"
            its.instances[number] = _id_of(wanted, taken)
            taken.add(its.instances[number])
        if count > 1:
            its.notes.append(f"its {count} processes ran in one folder, and shared a session there")
    return list(found.values())


def render(found: Iterable[Found]) -> str:
    """Tables for agent.toml; what else is to be done stands above each as a comment."""
    parts = []
    for its in found:
        row = {k: v for k, v in _changed(its.program).items() if v}
        lines = [f"# {_line(its.name)} of pm2. To move it:"]
        limit = f" --set memory_limit={its.memory_limit}" if its.memory_limit else ""
        how = f"--engine program --program {its.program.name}{limit} --disabled"
        lines += [f"#   wa-agent create {id} {how}" for id in its.instances]
        enable = " && ".join(f"wa-agent enable {id}" for id in its.instances)
        lines += [f"#   pm2 stop {_quoted(its.name)} && {enable}"]
        lines += [f"# Not taken over: {note}" for note in its.notes]
        parts.append("\n".join(lines) + "\n" + tomli_w.dumps({"program": [row]}))
    return "\n".join(parts)


def _program(row: Mapping[str, Any], id: str, shell: Mapping[str, str]) -> ProgramDeclaration:
    interpreter = str(row.get("exec_interpreter") or "none")
    first = [] if interpreter == "none" else [interpreter, *_words(row.get("node_args"))]
    command = (*first, str(row.get("pm_exec_path", "")), *_words(row.get("args")))
    environment = row.get("env")
    given = environment.items() if isinstance(environment, dict) else ()
    kept = [
        f"{name}={value}"
        for name, value in sorted(given)
        if isinstance(value, str | int | float)
        and not _SHELLS.fullmatch(name)
        and shell.get(name) != str(value)
        and name != row.get("name")
        and not variable_fault(f"{name}={value}")
    ]
    return ProgramDeclaration(
        name=id, command=command, folder=str(row.get("pm_cwd", "")), environment=tuple(kept)
    )


def _notes(row: Mapping[str, Any]) -> Iterable[str]:
    if when := row.get("cron_restart"):
        yield f"restarts by the clock ({_line(when)})"
    if row.get("watch"):
        yield "restarts when its files change (watch)"
    if row.get("exec_mode") == "cluster_mode":
        yield "cluster mode: each instance is a process of its own, and they share no port"
    if row.get("autorestart") is False:
        yield "that it stays down when it ends (autorestart): here it is started again"
    if out := row.get("pm_out_log_path"):
        yield f"its log file ({_line(out)}): it goes on in the worker's log"


def _changed(program: ProgramDeclaration) -> dict[str, Any]:
    return {
        "name": program.name,
        "command": list(program.command),
        "folder": program.folder,
        "environment": list(program.environment),
    }


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(word) for word in value] if isinstance(value, list) else []


def _bytes(value: object) -> int:
    return value if type(value) is int and value >= 32 << 20 else 0


def _id_of(name: str, taken: Iterable[str]) -> str:
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40] or "bot"
    others = set(taken)
    ids = (plain, *(f"{plain}-{number}" for number in range(2, 10_000)))
    return next(id for id in ids if id not in others)


def _line(value: object) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in str(value))[:200]


def _quoted(name: str) -> str:
    plain = _line(name).replace("'", "'\\''")
    return f"'{plain}'"
