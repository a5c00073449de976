"""What pm2 keeps (`pm2 jlist`, `pm2 save`), read as rows of [[program]]. It changes nothing."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.engines.program.declaration import ProgramDeclaration, find_faults, variable_fault
from agent.errors import InvalidRequest
from agent.wings.programs.moved import LARGEST, Bot, free_id, plain_line

NUMBER = "NODE_APP_INSTANCE"
"""Each process of one name has its own: a bot may choose its session by it."""
_SHELLS = re.compile(
    r"PATH|SHELL|USER|LOGNAME|PWD|OLDPWD|LANG|LC_.*|TERM|SHLVL|MAIL|SSH_.*|XDG_.*|DBUS_.*"
    r"|LS_COLORS|LESS.*|HIST.*|DISPLAY|SUDO_.*|NVM_.*|PM2_.*|_|unique_id|NODE_APP_INSTANCE|name"
)
"""Variables of the shell that `pm2 start` was typed in, and pm2's own. HOME is the bot's: many keep
their session below it."""
_USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBER = re.compile(r"\s*|[+-]?(\d|\.\d|Infinity)[\w.+-]*")
"""What JavaScript may take for a number; pm2 takes it for an id."""
_SIZE = re.compile(r"(\d{1,12})([KMG])")
_PLAIN = re.compile(r"[\w./@:=, -]+", re.ASCII)
"""A script of package.json that needs no shell."""


def read_list(raw: bytes, shell: Mapping[str, str]) -> list[Bot]:
    """`shell`: a variable that is the same here is none of the bot's."""
    bots: dict[str, Bot] = {}
    taken: set[str] = set()
    rows = _rows(raw)
    names = [str(row.get("name", "")) for row in rows]
    for row, name in zip(rows, names, strict=True):
        bot = bots.setdefault(name, Bot(name))
        many = names.count(name) > 1
        id = free_id(f"{name}-{len(bot.programs) + 1}" if many else name, taken)
        program = _program(row, id, shell, many=many)
        if fault := _why_not(row, program) or _not_stopped_by(name):
            bot.refused = fault
            continue
        taken.add(id)
        if not bot.programs:
            bot.memory_limit = _bytes(row.get("max_memory_restart"))
            bot.taken, bot.notes = list(_taken(row)), [*_notes(row), *_left_out(row, shell)]
            if many:
                bot.notes.append("its processes run in one folder: each needs a session of its own")
        bot.programs.append(program)
    _note_shared(list(bots.values()))
    return list(bots.values())


def _why_not(row: Mapping[str, Any], program: ProgramDeclaration) -> str:
    if not row.get("pm_exec_path"):
        return "pm2's list names no script of it"
    return next((f"its {key}: {cause}" for key, cause in find_faults(program)), "")


def _not_stopped_by(name: str) -> str:
    """`pm2 stop` takes some names for something else: for all bots, for an id, for an option."""
    if name == "all" or name.startswith(("-", "/")) or _NUMBER.fullmatch(name):
        return f"`pm2 stop {name}` would not stop it alone; give it another name with pm2 first"
    return ""


def _note_shared(bots: Sequence[Bot]) -> None:
    """An argument or a variable may choose the session; here nothing tells."""
    for bot in bots:
        mine = {program.folder for program in bot.programs}
        others = [
            plain_line(its.name)
            for its in bots
            if its is not bot and mine & {program.folder for program in its.programs}
        ]
        if others:
            bot.notes.append(
                f"it runs in one folder with {', '.join(others[:5])}: enable both only where each"
                " has a session of its own"
            )


def _rows(raw: bytes) -> list[Mapping[str, Any]]:
    """`pm2 jlist` has each as `pm2_env`, and may print words of pm2's before its list."""
    begin = max(raw.find(b"[{"), 0)
    try:
        # No TOML can say half a character, which JavaScript makes by cutting within one.
        told = json.dumps(json.loads(raw[begin:]), ensure_ascii=False)
        rows = json.loads(told.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise InvalidRequest(
            "cannot read it: it is no list of pm2's (`pm2 save` writes one)", field="dump"
        )
    whole = [row for row in rows if isinstance(row, dict)]
    if rows and not whole:
        raise InvalidRequest("cannot read it: it is no list of pm2's bots", field="dump")
    inner = [row["pm2_env"] if isinstance(row.get("pm2_env"), dict) else row for row in whole]
    return [row for row in inner if not row.get("pmx_module")]


def _program(
    row: Mapping[str, Any], id: str, shell: Mapping[str, str], *, many: bool
) -> ProgramDeclaration:
    path, folder = str(_environment(row).get("PATH") or _USUAL), str(row.get("pm_cwd", ""))
    kept = [entry for entry in _own_variables(row, shell) if not variable_fault(entry)]
    if _node_in(path) not in ("", _node_in(_USUAL)):
        kept.append(f"PATH={path}")  # nvm's, for one: what the bot starts finds its Node there
    if many and row.get(NUMBER) is not None:
        kept.append(f"{NUMBER}={row[NUMBER]}")
    stop = row.get("kill_timeout") or 0
    longer = isinstance(stop, int) and stop > 10_000 and not _longest(stop)
    return ProgramDeclaration(
        name=id,
        command=_command(row, path, folder),
        folder=folder,
        environment=tuple(kept),
        pm2="message" if row.get("shutdown_with_message") is True else "signal",
        stop=stop / 1000 if longer else ProgramDeclaration().stop,
    )


def _environment(row: Mapping[str, Any]) -> Mapping[str, Any]:
    environment = row.get("env")
    return environment if isinstance(environment, dict) else {}


def _own_variables(row: Mapping[str, Any], shell: Mapping[str, str]) -> list[str]:
    """NAME=VALUE of each variable of the bot that is neither its shell's nor pm2's."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(_environment(row).items())
        if isinstance(value, str | int | float)
        and not _SHELLS.fullmatch(name)
        and (name == "HOME" or shell.get(name) != str(value))
        and name != row.get("name")
    ]


def _left_out(row: Mapping[str, Any], shell: Mapping[str, str]) -> Iterator[str]:
    for entry in _own_variables(row, shell):
        if fault := variable_fault(entry):
            yield f"its variable {plain_line(entry.partition('=')[0])}: {fault}"


def _node_in(path: str) -> str:
    return os.path.realpath(found) if (found := shutil.which("node", path=path)) else ""


def _command(row: Mapping[str, Any], path: str, folder: str) -> tuple[str, ...]:
    """With whole paths: pm2 found its interpreter by the PATH of a person's shell."""
    script, arguments = str(row.get("pm_exec_path", "")), _words(row.get("args"))
    if own := npm_script(script, arguments, folder):
        first, *rest = own
        local = Path(folder) / "node_modules" / ".bin"
        return (shutil.which(first, path=f"{local}:{path}") or first, *rest)
    interpreter = str(row.get("exec_interpreter") or "none")
    if interpreter == "none":
        return (script, *arguments)
    found = shutil.which(interpreter, path=path) or interpreter
    return (found, *_words(row.get("node_args")), script, *arguments)


def npm_script(script: str, arguments: list[str], folder: str) -> list[str]:
    """The program that `npm start` or `npm run NAME` would start; [] where a shell must read it."""
    if Path(script).name not in ("npm", "npm-cli.js"):
        return []
    words = arguments[1:] if arguments[:1] in (["run"], ["run-script"]) else arguments
    try:
        package = json.loads((Path(folder) / "package.json").read_bytes()[:LARGEST])
        line = package["scripts"][words[0]]
        if len(words) == 1 and _PLAIN.fullmatch(line) and "=" not in line.split()[0]:
            return shlex.split(line)
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        pass
    return []


def _taken(row: Mapping[str, Any]) -> Iterator[str]:
    if row.get("wait_ready"):
        yield "process.send('ready') (wait_ready): the log has it; its library tells of the session"
    if row.get("shutdown_with_message"):
        yield "it is asked to end by the message 'shutdown' (shutdown_with_message)"


def _notes(row: Mapping[str, Any]) -> Iterator[str]:
    if when := row.get("cron_restart"):
        line = f"{plain_line(when)} wa-agent restart ID"
        yield f"restarts by the clock: a line of cron does it, {line}"
    if row.get("watch"):
        yield "restarts when its files change (watch)"
    if row.get("exec_mode") == "cluster_mode":
        yield "cluster mode: its processes share no port here"
    if row.get("max_memory_restart") and not _bytes(row.get("max_memory_restart")):
        yield "its limit of memory (max_memory_restart): memory_limit is 32 MiB and more, in bytes"
    if _longest(row.get("kill_timeout")):
        yield "its time to end (kill_timeout): `stop` is 600 seconds at most"
    if row.get("autorestart") is False:
        yield "that it stays down when it ends (autorestart): here it is started again"
    if out := row.get("pm_out_log_path"):
        yield f"its log file ({plain_line(out)}): what it prints goes on in the worker's log"
    if row.get("uid"):
        yield f"its user ({plain_line(row['uid'])}): `User=` in a drop-in of its unit sets one"
    script, arguments = str(row.get("pm_exec_path", "")), _words(row.get("args"))
    npm = Path(script).name in ("npm", "npm-cli.js")
    if npm and not npm_script(script, arguments, str(row.get("pm_cwd", ""))):
        yield "npm starts it: its library is noticed where `command` names the program itself"


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(word) for word in value] if isinstance(value, list) else []


def _longest(value: object) -> bool:
    return isinstance(value, int) and value > 600_000


def _bytes(value: object) -> int:
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        value = int(found[1]) << {"K": 10, "M": 20, "G": 30}[found[2]]
    return value if type(value) is int and value >= 32 << 20 else 0
