"""What a program is told by its environment. It gets none of the agent's variables: no key, no
socket of the manager's, no setting."""

import base64
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from agent.engines.base import in_path
from agent.engines.program.declaration import ProgramDeclaration, variable_fault
from agent.errors import EngineError

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
    """EngineError names the line, and never shows a value."""
    if not path:
        return {}
    try:
        # O_NONBLOCK: a pipe would wait for its writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no plain file")
            text = file.read(LONGEST_FILE + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EngineError(f"cannot read {path} (environment_file): {cause}", code=MISSING) from None
    if len(text) > LONGEST_FILE:
        raise EngineError(f"cannot use {path} (environment_file): it is too long", code=MISSING)
    found = {}
    for number, name, value in _entries("\n".join(text.splitlines())):
        if fault := variable_fault(f"{name}={value}" if name else value):
            raise EngineError(
                f"cannot use line {number} of {path} (environment_file): {fault}", code=MISSING
            )
        found[name] = value
    return found


def _entries(text: str) -> Iterator[tuple[int, str, str]]:
    """The number of its line, name and value of each; no name where a line has none."""
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
"""Of the worker's own environment. By its invocation the host finds what a killed worker left."""
PRELOAD = Path(__file__).parent / "preload" / "preload.cjs"
SHORTEST_SECRET = 6
"""Characters of a value that is kept out of the log. A shorter one is so as a whole word, where it
is no usual word or its name is a secret's: others would be in every other line."""
_SECRETS_NAME = re.compile(r"pass|pwd|secret|token|key|pin\b|_pw\b|^pw\b", re.IGNORECASE)
_MIXED = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z]).{3,}", re.DOTALL)


def secrets_of(values: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """What no line of the log may show, anywhere in it, and as a whole word: values, line by line,
    also as an address or base64 has them."""
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
    """`told`: what the worker tells it; nothing else may stand in its place."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    given = dict(entry.split("=", 1) for entry in program.environment)
    return {**kept, **given, **of_file, **told}


def preload_into(environment: dict[str, str], fd: int, socket: str) -> None:
    """A Node that it runs loads our module first, which gives the program its own options back."""
    given = environment.get("NODE_OPTIONS", "")
    if given:
        environment["WA_PROGRAM_NODE_OPTIONS"] = given
    environment["NODE_OPTIONS"] = f'{given} --require "{PRELOAD}"'.strip()
    environment["WA_PROGRAM_FD_IS"] = f"{fd} {socket}"


def find_command(program: ProgramDeclaration, environment: Mapping[str, str]) -> list[str]:
    """The command with the path of its program; EngineError names what is not there."""
    first = program.command[0]
    found = in_path(first, environment.get("PATH", os.defpath))
    if found is None:
        what = "is not there or may not be run" if "/" in first else "is in no folder of its PATH"
        what = "is a folder: name the program in it" if Path(first).is_dir() else what
        raise EngineError(f"cannot start {first}: it {what}", code=MISSING)
    if program.folder and not Path(program.folder).is_dir():
        raise EngineError(f"cannot run in {program.folder}: there is no such folder", code=MISSING)
    if lacks := _lost_interpreter(found):
        raise EngineError(
            f"cannot start {first}: its first line names {lacks}, which is not there", code=MISSING
        )
    return [found, *program.command[1:]]


def _lost_interpreter(program: str) -> str:
    """What its line `#!` names and this machine has not; "" = it names nothing such."""
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
    """A worker has no right to become another user."""
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
