"""`wa-agent create ID --engine program --program NAME`."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--program", metavar="NAME", help="the [[program]] of agent.toml that runs as it"
    )


def create(options: argparse.Namespace) -> None:
    """The usual way, with the program as a setting."""
    if options.program is not None:
        options.set = [*options.set, f"program={options.program}"]
