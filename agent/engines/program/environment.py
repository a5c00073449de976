"""What a program is told by its environment. It gets none of the agent's variables: no key, no
socket of the manager's, no setting."""

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from agent.engines.program.declaration import ProgramDeclaration
from agent.engines.program.environment_file import MISSING
from agent.engines.surroundings import in_path
from agent.errors import EngineError

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
        own = pwd.getpwuid(os.geteuid()).pw_name if _is_named() else str(os.geteuid())
        raise EngineError(
            f"cannot run it as {program.user}: its worker is {own}, and may become no other; set"
            f" User={program.user} in a drop-in of its unit, or remove `user`",
            code=MISSING,
        )


def _is_named() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
