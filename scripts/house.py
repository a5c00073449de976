"""Prints how heavy the program is, beside its goals: `scripts/check --house`.

A line of code is no blank, no comment and no docstring. The status is 1 where a goal is missed.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

AGENT = Path(__file__).parents[1] / "agent"
BASE = (
    *("*.py", "core", "supervise", "host", "worker", "link", "store", "vault", "config", "daemon"),
    *("api/*.py", "api/http", "cli/*.py", "cli/terminal", "engines/*.py", "engines/sandbox"),
    "wings/*.py",
)
"""What keeps a session alive: rooms below agent/, and the modules that lie in no room of theirs."""
NOT_BASE = (
    # servers that hold sessions, packs, alerts
    *("core/backends", "supervise/backends", "config/backends.py", "config/backend_rules.py"),
    *("worker/backend", "cli/backends"),
    *("worker/pack*", "supervise/**/packs*"),
    *("core/alerts", "config/alerts.py"),
    # archives, invitations of desks, changes of agent.toml by a command, messages
    *("vault/archives", "supervise/copies/archives.py", "supervise/copies/invitations.py"),
    *("core/invitation_line.py", "config/settings_file.py"),
    *("supervise/messages", "engines/sandbox/chat", "engines/phones.py"),
    # what only engines, wings and commands share
    *("engines/raw.py", "engines/reason_codes.py", "engines/surroundings.py"),
    *("core/network/addresses.py", "config/secret_file.py", "api/http/wrong_tries.py"),
    *("other_user.py", "cli/terminal/progress.py"),
)
"""What lies among them and belongs to a capability that an operator may not need. The base imports
it at few doors (tests/scripts/test_house.py)."""
MOST_LINES = 300
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}


@cache  # the tests ask for each of 700 modules more than once
def lines_of(path: Path) -> tuple[set[int], set[int]]:
    """The lines of code, and those of them that import."""
    text = path.read_text(encoding="utf-8")
    docs: set[int] = set()
    imports: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _span(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs |= _span(node) if isinstance(node.value.value, str) else set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code - docs, imports


def is_table(path: Path) -> bool:
    return "table" in (path.stem, path.parent.name)


def _span(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def modules_of(rooms: tuple[str, ...]) -> Iterator[Path]:
    for room in rooms:
        for found in AGENT.glob(room):
            yield from found.rglob("*.py") if found.is_dir() else (found,)


def main() -> int:
    modules = sorted(AGENT.rglob("*.py"))
    lines = {path: lines_of(path) for path in modules}
    code = sum(len(own) for own, _ in lines.values())
    imports = sum(len(own) for _, own in lines.values())
    base = set(modules_of(BASE)) - set(modules_of(NOT_BASE))
    long = {
        path: length
        for path in modules
        if (length := path.read_text(encoding="utf-8").count("\n")) > MOST_LINES
        and not is_table(path)
    }
    missed = 0
    for name, figure, goal in (
        ("lines of code", code, 52_000),
        ("of them imports, %", round(100 * imports / code, 1), 8),
        ("lines of the base", sum(len(lines[path][0]) for path in base), 24_000),
        (f"modules over {MOST_LINES} lines that are no tables", len(long), 0),
    ):
        met = figure <= goal
        missed += not met
        print(f"{name:46} {figure:>8,}  goal {goal:>6,}  {'met' if met else 'missed'}")
    for path, length in sorted(long.items()):
        print(f"  {path.relative_to(AGENT.parent)}: {length}")
    print(f"{len(modules)} modules, of them {len(base)} of the base")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
