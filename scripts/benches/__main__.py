"""Measure one subject, print its table, and keep it in .cache/bench/."""

import argparse
import signal
import sys

from scripts.benches import footprint
from scripts.benches.machine import CACHE


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, end_in_order)
    if options.subject == "footprint":
        report = footprint.measure(
            options.instances, options.only, many=options.many, quick=options.quick
        )
    elif options.subject == "web":
        from scripts.benches import web  # the others need no browser's libraries

        report = web.measure(options.instances, quick=options.quick)
    elif options.subject == "baileys":
        from scripts.benches import baileys

        report = baileys.measure(options.instances, quick=options.quick)
    else:
        from scripts.benches import compare

        report = compare.measure(
            options.commit, options.instances, rounds=options.rounds, quick=options.quick
        )
    written = report.write(CACHE)
    print(report.markdown())
    print(f"written: {written}", file=sys.stderr)
    missed = [row.measure for row in report.rows if row.met is False]
    for measure in missed:
        print(f"goal not met: {measure}", file=sys.stderr)
    return 1 if missed else 0


def end_in_order(_number: int, _frame: object) -> None:
    """Ended by an order, it still ends whatever it began, and a second order does not break that
    off: `timeout` sends two."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)
    subject = subjects.add_parser("footprint", help="memory, processor, starts, kills, adoption")
    subject.add_argument("--instances", type=int, default=200, metavar="N", help="sessions")
    words = "sessions of one more run of the agent alone; 0 = no such run"
    subject.add_argument("--many", type=int, default=1000, metavar="N", help=words)
    words = f"measure this program only: {', '.join(footprint.SYSTEMS)}"
    subject.add_argument(
        "--only", choices=footprint.SYSTEMS, metavar="NAME", action="append", help=words
    )
    subject.add_argument("--quick", action="store_true", help="fewer runs, shorter windows")
    for name, meaning in (
        ("web", "one browser per session, and whatsapp-web.js' own"),
        ("baileys", "one Node per session, a plain bot, pm2 with such bots, and the web engine"),
    ):
        subject = subjects.add_parser(name, help=meaning)
        subject.add_argument("--instances", type=int, default=8, metavar="N", help="sessions")
        subject.add_argument("--quick", action="store_true", help="one round, shorter windows")
    subject = subjects.add_parser("compare", help="this checkout's agent beside another commit's")
    subject.add_argument("commit", metavar="COMMIT", help="what it is compared with")
    subject.add_argument("--instances", type=int, default=200, metavar="N", help="sessions")
    words = "how often each of the two is measured"
    subject.add_argument("--rounds", type=int, default=3, metavar="N", help=words)
    subject.add_argument("--quick", action="store_true", help="shorter windows")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
