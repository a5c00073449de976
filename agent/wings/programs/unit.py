"""A unit of systemd that runs a bot, read as a row of [[program]]. It changes nothing."""

import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from agent.cli.copies.transfer import open_source
from agent.engines.program.declaration import ProgramDeclaration, find_faults, variable_fault
from agent.errors import InvalidRequest
from agent.wings.programs.moved import Bot, free_id, plain_line
from agent.wings.programs.pm2 import npm_script

SUFFIX = ".service"
LONGEST_FILE = 1 << 20
_WITHIN = 30.0
Values = Mapping[str, list[str]]
"""Of each key of [Service] what its lines say, in their order."""
_SIZE = re.compile(r"(\d{1,12})([KMGT]?)", re.ASCII)
_SPAN = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*(ms|s|sec|seconds?|min|m|minutes?|h|hours?)?")
_SECONDS = {"ms": 0.001, "m": 60, "h": 3600}
_SHELLS = ("sh", "bash", "dash", "zsh")
_KNOWN = re.compile(
    "ExecStart|WorkingDirectory|Environment|EnvironmentFile|User|MemoryMax|Restart|TimeoutStopSec"
    "|WatchdogSec|Type"
    "|Group|RestartSec|RestartSteps|RestartMaxDelaySec|KillMode|SyslogIdentifier|StartLimit.*"
    "|NotifyAccess|TimeoutStartSec|SuccessExitStatus|RemainAfterExit|SendSIGKILL"
)
"""What is taken over, and what a session's unit and its worker have in their own way."""


def find_unit(source: str) -> Path | None:
    """The file of a unit: named itself, or by the name by which systemd knows it."""
    if not source.endswith(SUFFIX):
        return None
    if Path(source).is_file():
        return Path(source).absolute()
    told = "" if "/" in source else _ask("show", "--property=FragmentPath", "--value", source)
    return Path(told.strip()) if told.strip() else None


def read_unit(path: Path) -> Bot:
    """As systemd reads it, where it runs and has this very file, with the drop-ins of all its
    folders; else with those beside the file."""
    user = ["--user"] if is_users(path) else []
    known = _ask(*user, "show", "--property=FragmentPath", "--value", path.name).strip()
    if known and Path(known).resolve() == path.resolve():
        text = _ask(*user, "cat", path.name)
        if len(text) <= LONGEST_FILE and "[Service]" in text:
            return bot_of(path.stem, _service([text]))
    drop_ins = sorted(path.with_name(f"{path.name}.d").glob("*.conf"))
    return bot_of(path.stem, _service(_read(file) for file in (path, *drop_ins)))


def is_users(path: Path) -> bool:
    return "systemd/user" in str(path.parent)


def _ask(*words: str) -> str:
    """ "" where no systemd runs, or it knows nothing of that."""
    if not Path("/run/systemd/system").is_dir() or not (program := shutil.which("systemctl")):
        return ""
    try:
        return subprocess.run(
            [program, "--no-pager", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WITHIN,
            check=True,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(path: Path) -> str:
    with open_source(path, "unit") as file:
        raw = file.read(LONGEST_FILE + 1)
    try:
        if len(raw) <= LONGEST_FILE:
            return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise InvalidRequest(f"cannot read {path}: it is no unit of systemd's", field="source")


def _service(texts: Iterable[str]) -> Values:
    """An empty value takes back what the lines before it said."""
    found: dict[str, list[str]] = {}
    for text in texts:
        section = ""
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            entry = line.strip()
            if not entry or entry[0] in "#;":
                continue
            if entry[0] == "[":
                section = entry
            elif section == "[Service]" and "=" in entry:
                key, _, value = (part.strip() for part in entry.partition("="))
                found.setdefault(key, []).append(value)
                if not value:
                    found[key] = []
    return {key: values for key, values in found.items() if values}


def bot_of(name: str, said: Values) -> Bot:
    bot = Bot(name)
    try:
        program = _program(name, said)
    except ValueError as error:
        bot.refused = str(error)
        return bot
    if fault := next((f"its {key}: {cause}" for key, cause in find_faults(program)), ""):
        bot.refused = fault
        return bot
    bot.programs.append(program)
    bot.memory_limit = _bytes(_last(said, "MemoryMax"))
    bot.notes = list(_notes(said, program))
    return bot


def _program(name: str, said: Values) -> ProgramDeclaration:
    """ValueError: why it cannot move."""
    if "@" in name:
        raise ValueError("it is a template: import a unit with its own name")
    if (kind := _last(said, "Type")) in ("forking", "oneshot", "dbus"):
        raise ValueError(f"Type={kind}: a bot runs as long as its session does")
    lines = said.get("ExecStart", [])
    if len(lines) != 1:
        raise ValueError(f"it has {len(lines)} lines ExecStart, and a program one")
    folder = _plain("WorkingDirectory", _last(said, "WorkingDirectory", "/").removeprefix("-"))
    words = [_plain("ExecStart", word) for word in _words(lines[0].lstrip("@-:+!"))]
    if not words:
        raise ValueError("its ExecStart names no program")
    if own := npm_script(words[0], words[1:], folder):
        words = own
    files = _files(said)
    plain = ProgramDeclaration()
    stop = _seconds(_last(said, "TimeoutStopSec"))
    return ProgramDeclaration(
        name=free_id(name, ()),
        command=tuple(words),
        folder=folder,
        environment=tuple(_environment(said)),
        environment_file=files[0] if files else "",
        watchdog=min(_seconds(_last(said, "WatchdogSec")), 86_400.0),
        stop=stop if plain.stop < stop <= 600 else plain.stop,
    )


def _plain(key: str, word: str) -> str:
    """systemd writes other words in the place of these; only a bare sign can be taken over."""
    bare = word.replace("%%", "").replace("$$", "")
    if "%" in bare or (key == "ExecStart" and "$" in bare):
        raise ValueError(f"its {key} has a specifier or a variable (%, $): write the word itself")
    return word.replace("%%", "%").replace("$$", "$") if key == "ExecStart" else word


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        raise ValueError("its quotes do not end") from None


def _environment(said: Values) -> Iterator[str]:
    given: dict[str, str] = {}
    with suppress(KeyError):  # systemd gives each service the HOME of its user
        given["HOME"] = pwd.getpwnam(_last(said, "User", "root")).pw_dir
    for line in said.get("Environment", []):
        for entry in _words(line):
            name, _, value = entry.partition("=")
            if "%" in value.replace("%%", ""):
                raise ValueError(f"its variable {name:.60} has a specifier (%): write it out")
            given[name] = value.replace("%%", "%")
    for name, value in given.items():
        if fault := variable_fault(f"{name}={value}"):
            raise ValueError(f"its Environment: {fault}")
        yield f"{name}={value}"


def _files(said: Values) -> list[str]:
    """Its environment files that are there or must be."""
    named = said.get("EnvironmentFile", [])
    for name in named:
        _plain("EnvironmentFile", name)
    return [name.lstrip("-") for name in named if name[:1] != "-" or Path(name[1:]).is_file()]


def _notes(said: Values, program: ProgramDeclaration) -> Iterator[str]:
    if (restart := _last(said, "Restart", "no")) != "always":
        yield f"Restart={plain_line(restart)}: here it is started again whenever it ends"
    user = _last(said, "User", "root")
    yield f"its user ({plain_line(user)}): `User=` in a drop-in of its unit sets one"
    for name in _files(said)[1:]:
        yield f"a second EnvironmentFile ({plain_line(name)}): write its lines into the first one"
    if _last(said, "MemoryMax") and not _bytes(_last(said, "MemoryMax")):
        yield f"MemoryMax={plain_line(_last(said, 'MemoryMax'))}: no number of bytes of 32M or more"
    first = Path(program.command[0]).name
    if first in (*_SHELLS, "npm", "npm-cli.js", "yarn", "pnpm"):
        yield f"{first} starts it: its library is noticed where `command` names the program itself"
    if rest := sorted(key for key in said if not _KNOWN.fullmatch(key)):
        yield f"{plain_line(', '.join(rest))}: write them into a drop-in of its unit"


def _last(said: Values, key: str, default: str = "") -> str:
    return said.get(key, [default])[-1]


def _bytes(value: str) -> int:
    if not (match := _SIZE.fullmatch(value)):
        return 0
    size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]
    return size if 32 << 20 <= size < 1 << 50 else 0


def _seconds(value: str) -> float:
    """0: none, or said in a way that is not read here."""
    if not (match := _SPAN.fullmatch(value)):
        return 0.0
    unit = match[2] or "s"
    return float(match[1]) * (0.001 if unit == "ms" else _SECONDS.get(unit[0], 1))
