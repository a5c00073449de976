"""The machine's network, file and swap settings against what many long connections need."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.command import Subparsers, add_command, wants_json
from agent.cli.terminal.show import print_json, print_table

if TYPE_CHECKING:
    from agent.host.machine.tune import Tuning


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "tune",
        tune,
        "compare the machine's settings with the needed ones, write or undo them",
        "wa-agent tune --apply --now",
    )
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
    from agent.host.machine.tune import Tuning

    tuning = Tuning(Path(options.root))
    if options.apply:
        return _apply(options, tuning)
    if options.undo:
        return _undo(options, tuning)
    return _show(options, tuning)


def _show(options: argparse.Namespace, tuning: "Tuning") -> int:
    from agent.host.machine.tune import all_good

    rows, overriding = tuning.rows(), tuning.overriding()
    if wants_json(options):
        print_json(
            {
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
        )
    else:
        print_table(
            ("", "SETTING", "NOW", "NEEDED", "WHY"),
            [
                ("ok" if row.good else "change", row.name, row.now, row.needed, row.why)
                for row in rows
            ],
        )
        for name, file in overriding.items():
            print(f"{file} sets {name} again, after {tuning.drop_in}")
        if any(row.written and not row.good for row in rows):
            print("wa-agent tune --apply writes them; --undo takes it back")
    return 0 if all_good(rows) else 1


def _apply(options: argparse.Namespace, tuning: "Tuning") -> int:
    written = tuning.apply(now=options.now)
    if wants_json(options):
        print_json({"file": str(tuning.drop_in), "written": written, "in_force": options.now})
    elif not written:
        print("every setting is good already")
    else:
        print(f"{tuning.drop_in} written: {', '.join(written)}")
        if options.now:
            print("they are in force")
        else:
            print(f"in force from the next boot, or now with: sysctl --load={tuning.drop_in}")
    return 0


def _undo(options: argparse.Namespace, tuning: "Tuning") -> int:
    undone = tuning.undo()
    if wants_json(options):
        print_json({"file": str(tuning.drop_in), "undone": undone})
    elif undone:
        print(f"{tuning.drop_in} removed; as before: {', '.join(undone)}")
    else:
        print("nothing to undo")
    return 0
