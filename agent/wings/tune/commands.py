"""The machine's network, file and swap settings, compared with those that many connections need."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.command import Subparsers, add_command
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import table_lines

if TYPE_CHECKING:
    from agent.wings.tune.tuning import Tuning


def add(commands: Subparsers) -> None:
    summary = "compare the machine's settings with the needed ones, write or undo them"
    parser = add_command(commands, "tune", tune, summary, "--apply --now")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="write the needed settings as a drop-in")
    what.add_argument(
        "--undo", action="store_true", help="remove the drop-in and restore the values before it"
    )
    parser.add_argument(
        "--now", action="store_true", help="with --apply: also set them now, before the next boot"
    )
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)


def tune(options: argparse.Namespace) -> int:
    from agent.wings.tune.tuning import Tuning

    tuning = Tuning(Path(options.root))
    if options.apply:
        return _apply(options, tuning)
    if options.undo:
        return _undo(options, tuning)
    return _show(options, tuning)


def _show(options: argparse.Namespace, tuning: "Tuning") -> int:
    from agent.wings.tune.tuning import all_good

    rows, overriding = tuning.rows(), tuning.overriding()
    shown = {
        "good": all_good(rows),
        "applied": tuning.drop_in.exists(),
        "settings": [
            {
                "name": row.name,
                "now": row.now,
                "needed": row.needed,
                "good": row.good,
                "why": row.why,
                "overridden_by": overriding.get(row.name),
            }
            for row in rows
        ],
    }
    cells = [
        ("ok" if row.good else "change", row.name, row.now, row.needed, row.why) for row in rows
    ]
    lines = table_lines(("", "SETTING", "NOW", "NEEDED", "WHY"), cells)
    lines += [
        f"{file} sets {name} again, after {tuning.drop_in}" for name, file in overriding.items()
    ]
    if any(row.written and not row.good for row in rows):
        lines.append("wa-agent tune --apply writes them; --undo takes it back")
    return print_answer(options, shown, *lines, good=all_good(rows))


def _apply(options: argparse.Namespace, tuning: "Tuning") -> int:
    written = tuning.apply(now=options.now)
    lines = ["every setting is good already"]
    if written:
        later = f"in force from the next boot, or now with: sysctl --load={tuning.drop_in}"
        lines = [
            f"{tuning.drop_in} written: {', '.join(written)}",
            "they are in force" if options.now else later,
        ]
    shown = {"file": str(tuning.drop_in), "written": written, "in_force": options.now}
    return print_answer(options, shown, *lines)


def _undo(options: argparse.Namespace, tuning: "Tuning") -> int:
    undone = tuning.undo()
    done = f"{tuning.drop_in} removed; as before: {', '.join(undone)}"
    shown = {"file": str(tuning.drop_in), "undone": undone}
    return print_answer(options, shown, done if undone else "nothing to undo")
