"""One [[program]] of agent.toml: the command of the user's own bot. Commands come from there alone:
an instance names a program, and no more.

The environment of a program says some of it. It has none of the agent's variables: no key, no
socket of the manager's, no setting.
"""

import base64
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agent.core.setting import Fault, name_fault, path_fault, setting
from agent.engines.base import in_path
from agent.errors import EngineError
from agent.files import open_plain

RESERVED = frozenset(
    [
        *("WA_INSTANCE", "WA_SESSION", "WA_PROGRAM_MESSAGES", "WA_PROGRAM_FD"),
        *("WA_PROGRAM_FD_IS", "WA_PROGRAM_NODE_OPTIONS"),  # for its preload in a Node
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    ]
)
"""Variables that the worker sets for a program, and WATCHDOG_PID, which would silence the last."""


@dataclass(frozen=True, slots=True)
class ProgramDeclaration:
    """A [[program]] of agent.toml. Durations are seconds."""

    name: str = setting("", "name of the program here: [a-z0-9][a-z0-9_-]{0,47}", check=name_fault)
    command: tuple[str, ...] = setting(
        (), "the program and its arguments, one text each; no shell reads them"
    )
    folder: str = setting(
        "",
        'folder that it runs in; "" = its session\'s own, where files with relative names then lie',
        check=path_fault,
    )
    environment: tuple[str, ...] = setting(
        (), "NAME=VALUE, one text each, of its environment", secret=True
    )
    environment_file: str = setting(
        "", "file with more NAME=VALUE lines, read at each start; its values stay out of the log",
        check=path_fault,
    )  # fmt: skip
    user: str = setting("", 'user that it must run as; "" = the worker\'s')
    session: str = setting(
        "", 'where it keeps its session: a folder in its session\'s own, or a path; "" = found'
    )
    library: str = setting(
        "auto",
        "auto = the library that a Node program uses is noticed; none = nothing is loaded into it",
        choices=("auto", "none"),
    )
    pm2: str = setting(
        "no",
        "signal, message = it has what pm2 gave it: process.send, and a standard input that stays"
        ' open; it is asked to end by SIGINT, or by the message "shutdown"',
        choices=("no", "signal", "message"),
    )
    watchdog: float = setting(
        0.0,
        "seconds without its WATCHDOG=1 after which it is ended and started again; 0 = none wanted",
        low=0,
        high=86_400,
    )
    stop: float = setting(
        10.0, "seconds that it may take to end by itself, before it is killed", low=0.1, high=600
    )
    starts: int = setting(
        5, "ends within ten minutes after which it counts as failing", low=1, high=100
    )


def find_faults(program: ProgramDeclaration) -> Iterator[Fault]:
    """Yield the faults of a program, never with a value of its environment."""
    if any("\0" in part for part in program.command):
        yield ("command",), "no program takes a zero byte"
    for key in ("folder", "environment_file", "session"):
        if not getattr(program, key).isprintable():
            yield (key,), "it has control characters, and a unit of systemd names it"
    if ".." in program.session.split("/"):
        yield ("session",), f"it must be a path without .., not {program.session!r:.80}"
    if program.command and "/" in (first := program.command[0]) and not first.startswith("/"):
        yield ("command",), f"its program must be a name or an absolute path, not {first!r:.80}"
    for number, entry in enumerate(program.environment, 1):
        if fault := variable_fault(entry):
            yield ("environment",), f"entry {number}: {fault}"


def variable_fault(entry: str) -> str:
    """Return why NAME=VALUE cannot be set; never with the value."""
    name, mark, value = entry.partition("=")
    if not mark or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
        return "it must be NAME=VALUE"
    if "\0" in value:
        return f"the value of {name} has a zero byte"
    if name in RESERVED:
        return f"{name} is the worker's to set"
    return ""


# A program's environment_file: NAME=VALUE lines, as systemd and dotenv write them.

MISSING = "program_missing"
LONGEST_FILE = 1 << 16
_QUOTED = r"""
    "(?P<double>(?:\\.|[^"\\])*)"[ \t]*(?:\#[^\n]*)?$
    | '(?P<single>[^']*)'[ \t]*(?:\#[^\n]*)?$
"""
_LINE = re.compile(
    rf"""
    [ \t]*(?:
        (?P<nothing>[#;][^\n]*)?$
        | (?:export[ \t]+)?(?P<name>[^\s=]+)[ \t]*=[ \t]*
          (?: {_QUOTED} | (?P<plain>(?:\\\n|[^\n])*)$ )
        | (?P<wrong>[^\n]*)$
    )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""A value in quotes may have several lines, another one goes on behind a backslash at its end."""


def read_environment_file(path: str) -> dict[str, str]:
    """Read a file of variables; EngineError names the line, and never shows a value."""
    if not path:
        return {}
    try:
        with open_plain(path, links=True) as file:
            text = file.read(LONGEST_FILE + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EngineError(f"cannot read {path} (environment_file): {cause}", code=MISSING) from None
    if len(text) > LONGEST_FILE:
        raise EngineError(f"cannot use {path} (environment_file): it is too long", code=MISSING)
    found = {}
    for number, name, value in _entries("\n".join(text.splitlines())):
        if fault := variable_fault(f"{name}={value}" if name else value):
            why = f"cannot use line {number} of {path} (environment_file): {fault}"
            raise EngineError(why, code=MISSING)
        found[name] = value
    return found


def _entries(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value of each entry; no name if a line has none."""
    at = 0
    while at <= len(text):
        match = _LINE.match(text, at)
        assert match is not None, "each line is one of the kinds"
        if match["name"] is not None or match["wrong"]:
            yield text.count("\n", 0, at) + 1, match["name"] or "", _value(match)
        at = match.end() + 1


def _value(match: re.Match[str]) -> str:
    if (double := match["double"]) is not None:
        joined = re.sub(r"\\\n", "", double)
        return re.sub(r"\\([\"\\`$])", r"\1", joined)
    if (single := match["single"]) is not None:
        return single
    return (match["plain"] or "").replace("\\\n", "").strip()


KEPT = (
    *("PATH", "HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "INVOCATION_ID"),
)
"""Variables that a program gets from the worker's own environment. The host finds by the
invocation's id what a killed worker left."""
PRELOAD = Path(__file__).parent / "preload" / "preload.cjs"
SHORTEST_SECRET = 6
"""Characters of a value that is kept out of the log. A shorter one is so as a whole word, where it
is no usual word or its name is a secret's: others would be in every other line."""
_SECRETS_NAME = re.compile(r"pass|pwd|secret|token|key|pin\b|_pw\b|^pw\b", re.IGNORECASE)
_MIXED = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z]).{3,}", re.DOTALL)


def secrets_of(values: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Return texts that no log line may show: those hidden anywhere in a line, and those hidden as
    a whole word. They are the values, line by line, and as an address or base64 has them."""
    anywhere, words = set(), set()
    for name, value in values.items():
        for part in re.split(r"\\r|\\n|[\r\n]+", value):
            if len(part) >= SHORTEST_SECRET:
                coded = base64.b64encode(part.encode("utf-8", "replace")).decode().rstrip("=")
                anywhere |= {part, quote(part, safe="", errors="replace"), coded}
            elif part and (_SECRETS_NAME.search(name) or _MIXED.fullmatch(part)):
                words.add(part)
    return anywhere, words


def own_environment(
    program: ProgramDeclaration, of_file: Mapping[str, str], told: Mapping[str, str]
) -> dict[str, str]:
    """Return the program's environment. `told`: variables of the worker, which stand above all."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    given = dict(entry.split("=", 1) for entry in program.environment)
    return {**kept, **given, **of_file, **told}


def preload_into(environment: dict[str, str], fd: int, socket: str) -> None:
    """Let Node load our module first, which gives the program its own options back."""
    given = environment.get("NODE_OPTIONS", "")
    if given:
        environment["WA_PROGRAM_NODE_OPTIONS"] = given
    environment["NODE_OPTIONS"] = f'{given} --require "{PRELOAD}"'.strip()
    environment["WA_PROGRAM_FD_IS"] = f"{fd} {socket}"


def find_command(program: ProgramDeclaration, environment: Mapping[str, str]) -> list[str]:
    """Return the command with the path of its program; EngineError names what is not there."""
    first = program.command[0]
    found = in_path(first, environment.get("PATH", os.defpath))
    if found is None:
        what = "is not there or may not be run" if "/" in first else "is in no folder of its PATH"
        what = "is a folder: name the program in it" if Path(first).is_dir() else what
        raise EngineError(f"cannot start {first}: it {what}", code=MISSING)
    if program.folder and not Path(program.folder).is_dir():
        raise EngineError(f"cannot run in {program.folder}: there is no such folder", code=MISSING)
    if lacks := _lost_interpreter(found):
        why = f"cannot start {first}: its first line names {lacks}, which is not there"
        raise EngineError(why, code=MISSING)
    return [found, *program.command[1:]]


def _lost_interpreter(program: str) -> str:
    """Return the interpreter that the program's line `#!` names and this machine lacks; "" =
    none."""
    if not Path(program).is_file():
        return ""
    try:
        with open(program, "rb") as file:  # noqa: PTH123
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].decode("utf-8", "replace").split() if line.startswith(b"#!") else []
    return words[0] if words and not Path(words[0]).exists() else ""


def refuse_other_user(program: ProgramDeclaration) -> None:
    """Refuse a program of another user: a worker has no right to become one."""
    if not program.user:
        return
    import pwd

    try:
        wanted = pwd.getpwnam(program.user).pw_uid
    except KeyError:
        raise EngineError(f"there is no user {program.user!r:.60}", code=MISSING) from None
    if wanted != os.geteuid():
        own = str(os.geteuid())
        with suppress(KeyError):
            own = pwd.getpwuid(os.geteuid()).pw_name
        raise EngineError(
            f"cannot run it as {program.user}: its worker is {own}, and may become no other; set"
            f" User={program.user} in a drop-in of its unit, or remove `user`",
            code=MISSING,
        )
