"""`programs`: what agent.toml declares, and what their units must show them; doctor's checks; and
for `import pm2` the bots of pm2 as rows of [[program]], from what `pm2 save` wrote, where nothing
is changed."""

import json
import os
import pwd
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from agent import errors, log
from agent.cli import client, command
from agent.config.load import add_rows, load_config
from agent.engines.program import declaration
from agent.moving.commands import only
from agent.moving.programs import hide_values, place_of, programs_of, render_drop_in

_DROP_INS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")


def add(commands: command.Commands) -> None:
    among = command.Commands(commands.add("programs", list_programs))
    among.add("drop-in", drop_in, "shopbot > program.conf")


def list_programs(options: command.Options) -> int:
    """List the programs that may run as instances.

    --config FILE: agent.toml
    """
    keys = ("name", "folder", "library", "environment")
    each = [(it, shlex.join(it.command)) for it in map(hide_values, _declared(options))]
    rows = [{key: getattr(it, key) for key in keys} | {"command": line} for it, line in each]
    columns = {"NAME": "name", "COMMAND": "command", "FOLDER": "folder", "LIBRARY": "library"}
    path = client.config_path(options.config, os.environ) or "agent.toml (--config FILE)"
    return options.print_rows(rows, columns, f"no programs: [[program]] in {path} names them")


def drop_in(options: command.Options) -> int:
    """Print a systemd drop-in with the rights that a program's unit needs.

    PROGRAM: the program's name
    --config FILE: agent.toml
    """
    name, declared = options.program, {program.name: program for program in _declared(options)}
    if name not in declared:
        names = ", ".join(declared) or "none"
        raise errors.NotFound(f"cannot find the program {name}; declared: {names}")
    text = render_drop_in(declared[name])
    if not text and not options.json:
        command.say(f"{name} needs no drop-in: a session's unit has all rights that it needs")
    path = "/etc/systemd/system/wa-instance@INSTANCE.service.d/program.conf"
    return options.print({"path": path, "text": text}, text.removesuffix("\n"))


def _declared(options: command.Options) -> tuple[declaration.ProgramDeclaration, ...]:
    """Return programs by the settings alone: operators need them before the agent has them."""
    return programs_of(load_config(client.config_path(options.config, os.environ), os.environ))


def examine(here: client.Installation) -> Iterator[client.Finding]:
    """For the doctor; starts nothing."""
    for program in programs_of(here.config):
        yield replace(_examine(program, here), check=f"program {program.name}")


def _examine(program: declaration.ProgramDeclaration, here: client.Installation) -> client.Finding:
    if program.environment and here.file and here.file.stat().st_mode & 0o004:
        words = "its variables are in a file open to all users"
        return client.wrong(words, f"chmod o-rwx {here.file}")
    cure = f"correct [[program]] {program.name} in agent.toml, or put back what it names"
    given = dict(entry.split("=", 1) for entry in program.environment)
    try:
        of_file = declaration.read_environment_file(program.environment_file)
        declaration.find_command(program, {**os.environ, **given, **of_file})
        hides = here.installed and render_drop_in(program)
    except (errors.EngineError, errors.InvalidRequest) as error:
        return client.wrong(str(error), cure)
    there = (path for place in _DROP_INS for path in Path(place).glob("wa-instance@*.service.d/*"))
    if hides and not any(there):
        words = "a session's unit hides folders that it needs, and no drop-in shows them"
        return client.note(words, f"wa-agent programs drop-in {program.name}")
    return client.ok("its command, folder and files are there")


_LARGEST = 16 << 20
_NUMBER = "NODE_APP_INSTANCE"
"""Variable with a process' number: a bot may choose its session by it."""
_SHELLS = re.compile(
    r"PATH|SHELL|USER|LOGNAME|PWD|OLDPWD|LANG|LC_.*|TERM|SHLVL|MAIL|SSH_.*|XDG_.*|DBUS_.*"
    r"|LS_COLORS|LESS.*|HIST.*|DISPLAY|SUDO_.*|NVM_.*|PM2_.*|_|unique_id|NODE_APP_INSTANCE|name"
)
"""Variables of the shell that `pm2 start` was typed in, and pm2's own. HOME is the bot's: many keep
their session below it."""
_USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_HERE = {
    "cron_restart": "restarts by the clock: a line of cron does it, wa-agent restart ID",
    "watch": "restarts when its files change (watch)",
    "pm_out_log_path": "its log file: what it prints goes on in the worker's log",
    "uid": "its user: `User=` in a drop-in of its unit sets one",
}


@dataclass(slots=True)
class Bot:
    """The processes of one name of pm2."""

    name: str
    programs: list[declaration.ProgramDeclaration] = field(default_factory=list)
    memory_limit: int = 0
    notes: list[str] = field(default_factory=list)
    """Settings that have no counterpart here."""
    refused: str = ""
    """Why the bot does not move, all of it or from some process on."""


def read_pm2(dump: str, env: Mapping[str, str]) -> tuple[bytes, str, str]:
    """The list, where it is from, and how the owner of that pm2 types its command. `dump`: that
    file; "" = this user's, or of the person who typed sudo."""
    own = Path(env.get("HOME", "/root")) / ".pm2"
    home = Path(dump).absolute().parent if dump else Path(env.get("PM2_HOME") or own)
    if home == own and not own.is_dir() and (person := env.get("SUDO_USER")):
        with suppress(KeyError):
            home = Path(pwd.getpwnam(person).pw_dir) / ".pm2"
    words = [] if home == own else [f"PM2_HOME={home}"]
    with suppress(OSError, KeyError):
        if (owner := home.stat().st_uid) != os.geteuid():
            words = ["sudo", "-u", pwd.getpwuid(owner).pw_name, "env", f"PM2_HOME={home}"]
    command = shlex.join([*words, "pm2"])
    path = Path(dump or home / "dump.pm2")
    with client.open_source(path, "dump") as file:
        minutes = max(time.time() - os.fstat(file.fileno()).st_mtime, 0) / 60
        source = f"{path}, which `pm2 save` wrote {minutes:.0f} minutes ago"
        return file.read(_LARGEST), source, command


def read_list(raw: bytes, shell: Mapping[str, str]) -> list[Bot]:
    """Read pm2's list. `shell`: a variable that is the same here is none of the bot's."""
    bots, taken, rows = dict[str, Bot](), set[str](), _rows(raw)
    names = [str(row.get("name", "")) for row in rows]
    for row, name in zip(rows, names, strict=True):
        bot = bots.setdefault(name, Bot(name))
        many = names.count(name) > 1
        id = free_id(f"{name}-{len(bot.programs) + 1}" if many else name, taken)
        program, notes = _program(row, id, shell, many=many)
        faults = []
        try:
            load_config(Path("agent.toml"), {}, text=render([program]))
        except errors.ConfigError as error:  # it shows no value of the environment
            key, cause = str(error.field).rpartition(".")[2], str(error).partition(": ")[2]
            faults.append(f"its {key}: {cause}")
        if not row.get("pm_exec_path"):
            faults = ["pm2's list names no script of it"]
        # `pm2 stop` takes some names for all bots, for a number or for an option.
        if name == "all" or not (re.match(r"[^\W\d]", name) and name.isprintable()):
            faults.append("`pm2 stop` might not stop it alone; give it another name with pm2 first")
        if faults:
            bot.refused = faults[0]
            continue
        taken.add(id)
        bot.programs.append(program)
        bot.notes, bot.memory_limit = notes, _bytes(row.get("max_memory_restart"))
    return list(bots.values())


def _rows(raw: bytes) -> list[Mapping[str, Any]]:
    try:
        # No TOML can say half a character, which JavaScript makes by cutting within one.
        told = json.dumps(json.loads(raw), ensure_ascii=False).encode("utf-8", "replace")
        return [row for row in json.loads(told) if not row.get("pmx_module")]
    except (ValueError, RecursionError, AttributeError, TypeError):
        words = "cannot read the list of pm2 (--dump): it is none; `pm2 save` writes one"
        raise errors.InvalidRequest(words, field="dump") from None


def _program(
    row: Mapping[str, Any], id: str, shell: Mapping[str, str], *, many: bool
) -> tuple[declaration.ProgramDeclaration, list[str]]:
    """Return the program of a row, and what of the row has no counterpart."""
    given: Mapping[str, Any] = it if isinstance(it := row.get("env"), dict) else {}
    path = str(given.get("PATH") or _USUAL)
    own = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(given.items())
        if isinstance(value, str | int | float)
        and not _SHELLS.fullmatch(name)
        and (name == "HOME" or shell.get(name) != str(value))
        and name != row.get("name")
    ]
    kept = [entry for entry in own if not declaration.variable_fault(entry)]
    notes = [words for key, words in _NOT_HERE.items() if row.get(key)]
    notes += [f"its variable {entry.partition('=')[0]}" for entry in own if entry not in kept]
    node, usual = (shutil.which("node", path=place) or "" for place in (path, _USUAL))
    if node and os.path.realpath(node) != os.path.realpath(usual):
        kept.append(f"PATH={path}")  # nvm's, for one: what the bot starts finds its Node there
    if many and row.get(_NUMBER) is not None:
        kept.append(f"{_NUMBER}={row[_NUMBER]}")
    script = str(row.get("pm_exec_path", ""))
    command = [script, *_words(row.get("args"))]
    if (interpreter := str(row.get("exec_interpreter") or "none")) != "none":
        # With its whole path: pm2 found it by the PATH of a person's shell.
        found = shutil.which(interpreter, path=path) or interpreter
        command = [found, *_words(row.get("node_args")), *command]
    if Path(script).name in ("npm", "npm-cli.js"):
        notes.append("npm starts it: its library is noticed where `command` names the bot itself")
    if row.get("exec_mode") == "cluster_mode":
        notes.append("cluster mode: its processes share no port here")
    if row.get("autorestart") is False:
        notes.append("that it stays down when it ends (autorestart): here it is started again")
    if row.get("max_memory_restart") and not _bytes(row.get("max_memory_restart")):
        notes.append("its limit of memory: memory_limit is 32 MiB and more, in bytes")
    stop = row.get("kill_timeout")
    program = declaration.ProgramDeclaration(
        name=id,
        command=tuple(command),
        folder=str(row.get("pm_cwd", "")),
        environment=tuple(kept),
        pm2="message" if row.get("shutdown_with_message") is True else "signal",
        stop=min(max(stop / 1000, 10.0), 600.0) if isinstance(stop, int) else 10.0,
    )
    return program, notes


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(word) for word in value] if isinstance(value, list) else []


def _bytes(value: object) -> int:
    return value if type(value) is int and 32 << 20 <= value <= 1 << 48 else 0


def free_id(name: str, taken: Iterable[str]) -> str:
    """Return a name in the letters of an id that is not taken."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40] or "bot"
    ids = (plain, *(f"{plain}-{number}" for number in range(2, 10_000)))
    return next(id for id in ids if id not in set(taken))


# `import pm2`: bots of pm2 become [[program]] tables and instances, disabled.


_RELOADS, _EVERY = 15.0, 0.1
_NEXT = (
    "",
    "Each of these commands ends pm2's, then starts ours. On systemd, before it:",
    "  wa-agent programs drop-in PROGRAM prints what its unit must be shown",
    "  wa-agent doctor prints what grants it more memory than its unit does",
)


def import_pm2(options: command.Options) -> int:
    for name in ("id", "replace", "enable", "engine"):
        if getattr(options, name):
            words = f"cannot use {name} for pm2: a bot becomes a disabled instance of its name"
            raise errors.InvalidRequest(words, field=name)
    if (path := client.config_path(options.config, os.environ)) is None:
        raise errors.InvalidRequest(f"cannot import from pm2: {client.NO_CONFIG}", field="config")
    raw, source, pm2 = read_pm2(options.dump, os.environ)
    bots = read_list(raw, os.environ)
    if not (wanted := only(options, [bot.name for bot in bots], "pm2")):
        raise errors.Refused("cannot import from pm2: it runs nothing", code="no_session")
    bots = [bot for bot in bots if bot.name in wanted]
    names = {program.name for bot in bots for program in bot.programs}
    there: dict[str, object] = {}
    try:
        path, agent = options.reader("import from pm2")
        for id in names & {it["id"] for it in agent.instances()}:
            there[id] = None
            with suppress(client.AgentSaidNo):  # another machine of a fleet has it
                there[id] = agent.get(f"/api/instance/{id}/details")["settings"].get("program")
    except errors.WaError:
        if not options.dry_run:  # which needs no agent
            raise
    new = _new_programs(bots, programs_of(load_config(path, os.environ)), there)
    done, tables = "nothing is changed", render([hide_values(program) for program in new])
    enable = "wa-agent enable"
    if not options.dry_run:
        if new:
            add_rows(path, render(new), env=os.environ, what="add programs to")
        done, tables = f"{len(new)} [[program]] added to {path}", ""
        if path.stat().st_mode & 0o004:
            done += "; every user may read their variables there: chmod o-rwx it"
        _create(agent, bots)
        enable += f" --socket {shlex.quote(str(agent.sockets[0]))}" if agent.sockets else ""
    shown = [_report(bot, pm2, enable) for bot in bots]
    lines = [f"read from {log.clean(source)}; {done}"]
    for report in shown:
        made = ", ".join(report["instances"]) or "none"
        lines += ["", f"{log.clean(report['pm2'])}: {made}, disabled"]
        lines += [f"  not taken over: {log.clean(left)}" for left in report["not_taken_over"]]
        if cause := report["refused"]:
            lines.append(f"  it does not move: {log.clean(cause)}")
        lines += [f"  {report['move']}"]
    answer = {"source": source, "bots": shown, "tables": tables}
    text = "\n".join([*tables.splitlines(), "", *lines, *_NEXT]).strip()
    return options.print(answer, text, good=not any(bot.refused for bot in bots))


def _new_programs(
    bots: list[Bot], declared: Iterable[declaration.ProgramDeclaration], there: Mapping[str, object]
) -> list[declaration.ProgramDeclaration]:
    """Those that agent.toml lacks: an import before this one may have added some. Nothing of a bot
    is written that the agent would refuse. `there`: by an instance's name the program it runs."""
    rows = {row.name: row for row in declared}
    for bot in bots:
        for program in [] if bot.refused else bot.programs:
            name, place = program.name, place_of(program)
            row = rows.setdefault(name, program)
            same = (it for it in rows.values() if it is not row and place_of(it)[1:] == place[1:])
            if (row.command, row.folder) != (program.command, program.folder):
                bot.refused = f"agent.toml has another [[program]] {name}; rename that one"
            elif place and (twin := next(same, None)):
                bot.refused = f"{name} and {twin.name} have their sessions at the same place,"
                bot.refused += f" {place[0]}; give each bot a folder of its own with pm2 first"
            elif there.get(name, name) != name:
                bot.refused = f"there is another instance {name}; rename the bot with pm2 first"
        if bot.refused:
            bot.programs.clear()
    return [own for bot in bots for own in bot.programs if rows[own.name] is own]


def render(programs: list[declaration.ProgramDeclaration]) -> str:
    """Render the rows without values that are the defaults."""
    rows = (
        {it.name: value for it in fields(own) if (value := getattr(own, it.name)) != it.default}
        for own in programs
    )
    return "\n".join(f"# From pm2.\n{tomli_w.dumps({'program': [row]})}" for row in rows)


def _create(agent: client.Client, bots: list[Bot]) -> None:
    """Create an instance for each program, of its name, unless it is there already."""
    agent.request("POST", "/api/reload")
    deadline = time.monotonic() + _RELOADS
    for bot in bots:
        limit = {"memory_limit": bot.memory_limit} if bot.memory_limit else {}
        left = [*bot.programs]
        while left:
            body = {"id": (id := left[0].name), "engine": "program", "enabled": False}
            try:
                agent.request("POST", "/api/instance", body | {"settings": limit | {"program": id}})
            except client.AgentSaidNo as error:
                if error.code == "unknown_program" and time.monotonic() < deadline:
                    time.sleep(_EVERY)  # the agent reads its settings after it answered
                    continue
                if error.code != "exists":
                    bot.refused = f"{id}: {error}"
                    bot.programs.remove(left[0])
            del left[0]


def _report(bot: Bot, pm2: str, enable: str) -> dict[str, Any]:
    """`move`: pm2 ends it, and forgets it for the next boot, before ours may start: never both."""
    ids = [program.name for program in bot.programs]
    ends = f"{pm2} stop {shlex.quote(bot.name)} && {pm2} save"
    move = " && ".join([ends, *(f"{enable} {id}" for id in ids)])
    return {
        "pm2": bot.name,
        "instances": ids,
        "memory_limit": bot.memory_limit,
        "not_taken_over": bot.notes,
        "refused": bot.refused,
        "move": move if ids and not bot.refused else "",
    }
