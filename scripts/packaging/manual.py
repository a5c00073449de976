"""Writes the manual page wa-agent(1) from the command line's own help."""

import argparse
import os
import sys
import time

from agent import VERSION
from agent.cli.command import build_parser


def main() -> None:
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    parser = build_parser()
    lines = [
        f'.TH WA-AGENT 1 "{day}" "wa-agent {VERSION}" "wa-agent"',
        ".SH NAME",
        f"wa-agent \\- {escape(parser.description or '').rstrip('.')}",
        ".SH SYNOPSIS",
        ".B wa-agent",
        "COMMAND [options]",
        ".SH COMMANDS",
        *commands(parser, ""),
        ".SH FILES",
        ".TP",
        ".I /etc/wa-agent/agent.toml",
        "Settings; \\fBwa-agent config init\\fR prints all of them with their meaning.",
        ".TP",
        ".I /var/lib/wa-agent",
        "State: the database and one folder for each session.",
        ".SH SEE ALSO",
        "/usr/share/doc/wa\\-agent/README.md.gz",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def commands(parser: argparse.ArgumentParser, before: str) -> list[str]:
    lines = []
    for name, command in subcommands(parser):
        full = f"{before}{name}"
        below = subcommands(command)
        if below:
            lines += commands(command, f"{full} ")
            continue
        usage = " ".join(command.format_usage().split()).partition(full)[2].strip()
        lines += [
            ".TP",
            f".B {escape(full)}",
            escape(usage),
            ".br",
            escape(command.description or ""),
        ]
        for action in command._actions:
            if action.help and action.help != argparse.SUPPRESS and action.dest != "help":
                words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
                text = action.help % {**vars(action), "prog": "wa-agent"}
                lines += [".br", f"  {escape(words)}: {escape(text)}"]
    return lines


def subcommands(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return list(action.choices.items())
    return []


def escape(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


main()
