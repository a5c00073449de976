"""Fails where the program is larger than scripts/budget.toml allows: `python -m scripts.budget`.

A line of code is no blank, no comment and no docstring. A file counts for the row with the longest
path that holds it. A landing lowers each row to what it reached (`--write`), and no row rises. A
new room stands under [building] until the one that it replaces is deleted.
"""

import ast
import io
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
BUDGET = TOP / "scripts/budget.toml"
JAVASCRIPT, WORDS, SETTINGS = "JavaScript and CSS", "words of documents", "settings"
MODULES, IMPORTS = "modules of agent", "imports of agent (%)"
GOALS = {
    **{"agent": 40_000, MODULES: 260, IMPORTS: 7, "tests": 40_000, "tests/trial": 9_500},
    **{"scripts": 4_000, JAVASCRIPT: 6_600, WORDS: 25_000, SETTINGS: 140},
}
"""Goals of the whole; the trial is no part of the tests here."""
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}
_NOT_OURS = {"node_modules", "__pycache__"}


def lines_of(text: str, module: ast.Module) -> int:
    docs: set[int] = set()
    for node in ast.walk(module):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            docs |= set(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docs)


def settings_of(module: ast.Module) -> int:
    """Fields that are made by `setting(...)`, or by a function named after it."""
    values = (node.value for node in ast.walk(module) if isinstance(node, ast.AnnAssign))
    calls = (value.func for value in values if isinstance(value, ast.Call))
    return sum(isinstance(it, ast.Name) and it.id in ("setting", "_route") for it in calls)


def files(*suffixes: str) -> Iterator[Path]:
    for path in (*TOP.glob("*"), *(it for room in ROOMS for it in (TOP / room).rglob("*"))):
        if path.suffix in suffixes and path.is_file() and not _NOT_OURS & set(path.parts):
            yield path.relative_to(TOP)


ROOMS = ("agent", "tests", "scripts", "systemd")


def measure(rows: list[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    by_length = sorted(rows, key=len, reverse=True)
    for path in files(".py"):
        text = (TOP / path).read_text(encoding="utf-8")
        module = ast.parse(text)
        holds = (row for row in by_length if path.is_relative_to(row))
        found[next(holds, str(path.parent))] += lines_of(text, module)
        if path.parts[0] == "agent":
            found[SETTINGS] += settings_of(module)
    for path in files(".js", ".mjs", ".cjs", ".css"):
        if path.parts[0] != "tests":
            lines = (TOP / path).read_text(encoding="utf-8").splitlines()
            found[JAVASCRIPT] += sum(bool(line.strip()) for line in lines)
    for path in files(".md"):
        found[WORDS] += len((TOP / path).read_text(encoding="utf-8").split())
    return found


def whole(found: Counter[str]) -> dict[str, float]:
    """Return the figures that have goals."""
    of = {it: sum(n for row, n in found.items() if Path(row).is_relative_to(it)) for it in GOALS}
    agent = [path for path in files(".py") if path.parts[0] == "agent"]
    nodes = (it for path in agent for it in ast.walk(ast.parse((TOP / path).read_text("utf-8"))))
    imports = (it for it in nodes if isinstance(it, ast.Import | ast.ImportFrom))
    lines = sum((it.end_lineno or it.lineno) - it.lineno + 1 for it in imports)
    trial = of["tests/trial"]
    more = {MODULES: len(agent), IMPORTS: round(100 * lines / of["agent"], 1)}
    return {**of, "tests": of["tests"] - trial, **more}


def main(argv: list[str]) -> int:
    text = BUDGET.read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    bounds: dict[str, int] = tables["most"] | tables["building"]
    found = measure(list(bounds))
    if argv == ["--write"]:
        for row, bound in tables["most"].items():
            if found[row] < bound:
                text = text.replace(f'"{row}" = {bound}\n', f'"{row}" = {found[row]}\n')
        BUDGET.write_text(text, encoding="utf-8")
        return 0
    over = sorted(row for row in found if found[row] > bounds.get(row, 0))
    for row in over:
        print(f"{row}: {found[row]:,}, and scripts/budget.toml allows {bounds.get(row, 0):,}")
    figures = whole(found).items()
    print("; ".join(f"{name}: {figure:,} of {GOALS[name]:,}" for name, figure in figures))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
