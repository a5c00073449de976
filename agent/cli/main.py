"""The program `wa-agent`: reads the command line, runs one command, returns its exit status."""

import argparse
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path

from agent.cli import agent
from agent.cli.command import Commands, Options, add_common, clean
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest, WaError

EVERY_DAY = "create qr list show why events send restart top doctor"
COMMANDS = (
    ("session", "a session", "create settings enable disable start stop restart logout delete"),
    ("session", "a session", "passkey qr pairing-code screenshot send"),
    ("agent.messages.commands", "a session", "messages outbox"),
    ("views", "what happens", "list show why reasons top events logs"),
    ("doctor", "what happens", "doctor"),
    ("repairs", "repairs", "repair recover ensure-healthy cleanup incidents health"),
    ("session", "copies, and moving in", "snapshot snapshots restore trash removed"),
    ("agent.moving.commands", "copies, and moving in", "export import"),
    ("pair", "copies, and moving in", "pair"),
    ("backends", "servers, bots and other programs", "backends"),
    ("agent.moving.program_commands", "servers, bots and other programs", "programs"),
    ("agent.webhooks.commands", "servers, bots and other programs", "webhooks"),
    ("agent", "this installation", "run version config key install-units"),
    ("sandbox", "trying it out", "sandbox demo"),
)
"""The modules of commands, below agent/cli or of another room, each with its title in the help and
its words; a module is imported when one of them is typed."""


_EPILOG = """\
exit statuses:
  0   done                      5   the agent does not answer
  1   failed                    75  try again later
  2   wrong use                 78  the configuration is wrong
  3   not found                 130 interrupted
  4   refused

environment:
  WA_AGENT_SOCKET  the agent's Unix socket     WA_AGENT_URL  ask http://HOST:PORT instead
  WA_AGENT_CONFIG  the configuration file      WA_AGENT_KEY  the key for that URL

example:
  wa-agent create sales --engine sandbox && wa-agent qr sales --watch
"""


class InSections(argparse.RawDescriptionHelpFormatter):
    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        commands = {command.dest: command for command in action._choices_actions}
        parts = []
        titles = {"every day": EVERY_DAY.split()}
        for _, title, words in COMMANDS:
            others = (word for word in words.split() if word not in EVERY_DAY.split())
            titles.setdefault(title, []).extend(others)
        for title, listed in titles.items():
            shown = [commands[word] for word in listed if word in commands]
            parts += [f"\n{title}:\n"] if shown else []
            parts += map(super()._format_action, shown)
        return self._join_parts(parts)


def build_parser(word: str = "") -> argparse.ArgumentParser:
    """Reads the commands of the module of `word` alone, or all where the word names none."""
    parser = argparse.ArgumentParser(
        prog="wa-agent",
        description="Keeps WhatsApp sessions alive on this machine.",
        epilog=_EPILOG,
        formatter_class=InSections,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=agent.version_line())
    add_common(parser)
    parser.set_defaults(json=False, socket=None, url=None, key=None)
    told = "wa-agent COMMAND --help tells more"
    commands = Commands(parser, title="commands", description=told, required=True)
    known = [name for name, _, words in COMMANDS if word in words.split()]
    for name in dict.fromkeys(known or (name for name, _, _ in COMMANDS)):
        import_module(name if name.startswith("agent.") else f"agent.cli.{name}").add(commands)
    return parser


def run(argv: list[str]) -> int:
    take_streams()
    try:
        parser = build_parser(argv[0] if argv else "")
        options, left = parser.parse_known_args(argv, Options())
        absent = "id" in options and options.id is None and "remote" not in options
        if left and absent and not left[0].startswith("-"):
            # argparse takes an ID for absent that stands behind a flag: `import SOURCE --all ID`.
            options.id = parse_instance_id(left.pop(0))
        if left:
            parser.error(f"unrecognized arguments: {' '.join(left)}")
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse: 0 after --help, 2 after wrong use
        return end.code if isinstance(end.code, int) else 2
    except WaError as error:
        refusal = error
    except UnicodeEncodeError:
        refusal = InvalidRequest("cannot use it: it is no UTF-8")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _print_no_more()  # the reader (head, less) ended first
        return 0
    except OSError as error:
        _print_no_more()
        what = error.filename or _what_has_no_name()
        refusal = WaError(f"cannot use {what}: {error.strerror or error}")
    shown = {"error": refusal.code, "message": str(refusal), "field": refusal.field}
    as_text = f"wa-agent: {clean(refusal)}"
    print(json.dumps(shown) if "--json" in argv else as_text, file=sys.stderr)
    return refusal.exit_status


def take_streams() -> None:
    """A stream that the caller closed takes what is printed and drops it; one whose encoding lacks
    a sign gets its number instead."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for the whole run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _what_has_no_name() -> str:
    try:
        Path.cwd()
    except OSError:
        return "the working folder"
    return "the standard output, where the answer belongs"


def _print_no_more() -> None:
    """Python would print a traceback at exit if it could not flush its output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
