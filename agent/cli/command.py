"""The program `wa-agent`: reads the command line, runs one command, returns its exit status. A
command has a name, a function, its summary, its example and its arguments; it asks the agent and
prints the answer: JSON with --json, else lines and aligned tables with colours on a terminal, times
and sizes in words, and foreign text without control codes."""

import argparse
import json
import os
import re
import shutil
import sys
import textwrap
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

from agent import BUILD, VERSION, errors
from agent.cli.client import NO_CONFIG, Body, Client, config_path
from agent.core.setting import nearest
from agent.core.words import ID_PATTERN, parse_instance_id

if TYPE_CHECKING:
    from rich.table import Table as RichTable

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
    ("agent.fleet.commands", "this installation", "fleet"),
    ("agent", "this installation", "run version config key install-units"),
    ("drills", "trying it out", "sandbox"),
    ("agent", "trying it out", "demo"),
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


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if wrong := re.fullmatch(r"(.*invalid choice: '(.*)') \(choose from (.*)\)", message):
            near = nearest(wrong[2], re.findall("'(.*?)'", wrong[3]))
            message = f"{wrong[1]}; {near}".rstrip("; ")
        words = f"cannot read the command: {message}; {self.prog} --help tells more"
        raise errors.InvalidRequest(words)


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
            shown = [commands[word] for word in listed]
            parts += [f"\n{title}:\n", *map(super()._format_action, shown)]
        return self._join_parts(parts)


def build_parser(word: str = "") -> argparse.ArgumentParser:
    """Reads the commands of the module of `word` alone, or all where the word names none."""
    does = "Keeps WhatsApp sessions alive on this machine."
    parser = Parser("wa-agent", None, does, _EPILOG, formatter_class=InSections, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=version_line())
    add_common(parser)
    parser.set_defaults(json=False, socket=None, url=None, key=None)
    told = "wa-agent COMMAND --help tells more"
    commands = Commands(parser, title="commands", description=told, required=True)
    known = [name for name, _, words in COMMANDS if word in words.split()]
    for name in dict.fromkeys(known or (name for name, _, _ in COMMANDS)):
        import_module(name if name.startswith("agent.") else f"agent.cli.{name}").add(commands)
    return parser


def version_line() -> str:
    return f"wa-agent {VERSION}, {BUILD}" if BUILD else f"wa-agent {VERSION}"


def run(argv: list[str]) -> int:
    take_streams()
    options = Options(typed={})
    try:
        _, left = build_parser(argv[0] if argv else "").parse_known_args(argv, options)
        slots = (it for it in options.parser._actions if it.nargs == "?")
        slot = next((it for it in slots if vars(options)[it.dest] is None), None)
        if left and slot and not left[0].startswith("-"):
            # argparse takes a word for absent that stands behind an option: send a 1 --wait 0 TEXT
            setattr(options, slot.dest, (slot.type or str)(left.pop(0)))
        if left:
            near = nearest(left[0].partition("=")[0], options.parser._option_string_actions)
            file = "config" in options and not left[0].startswith("-")
            near = near or ("name a file by --config FILE" if file else "")
            options.parser.error(f"unrecognized arguments: {' '.join(left)}; {near}".rstrip("; "))
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse: 0 after --help, 2 after wrong use
        return end.code if isinstance(end.code, int) else 2
    except errors.WaError as error:
        refusal = error
    except UnicodeError:
        refusal = errors.InvalidRequest("cannot use the words or the input: they are no UTF-8")
    except OSError as error:
        # Python would print a traceback at exit if it could not flush its output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0  # the reader (head, less) ended first
        place = "the standard output, where the answer belongs"
        what = error.filename or (place if Path().stat().st_nlink else "the working folder")
        refusal = errors.WaError(f"cannot use {what}: {error.strerror or error}")
    field, message = refusal.field or "", str(refusal)
    for name in {field, field.removesuffix("_s"), field.removesuffix("s")} & options.typed.keys():
        message = message.replace(f"the field {field!r}", options.typed[name])
    shown = {"error": refusal.code, "message": message, "field": refusal.field}
    print(json.dumps(shown) if "--json" in argv else f"wa-agent: {clean(message)}", file=sys.stderr)
    return refusal.exit_status


def take_streams() -> None:
    """A standard output that the caller closed fails an answer, as a full disk does; a standard
    error drops what is printed. A stream whose encoding lacks a sign gets its number instead."""
    for name, mode in (("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, mode), "w"))
        else:
            stream.reconfigure(errors="backslashreplace")


# Printing

Row = dict[str, Any]
"""As the API gave it."""
Columns = Mapping[str, Any]
"""Each head with the field below it, or a function of the row that makes its cell."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SECONDS = ("seconds", "proof_age", "still_for")
"""Parts of the names of times in seconds."""
_LEAVE = "ENGINE ENABLED MEMORY UPTIME TYPE ACCEPTED TRIES CIRCUIT VERSION URL OLDEST"
"""Heads of the columns that leave a narrow window, in this order."""
_STYLES = {
    **{"CONNECTED": "green", "AUTH_FAILURE": "red", "DISCONNECTED": "dim", "QR_REQUIRED": "yellow"},
    **{"ok": "green", "note": "yellow", "wrong": "red"},
}
"""Colours of whole cells: of a status, of a level of the doctor."""


def clean(text: object) -> str:
    """Without control codes and direction marks: they could redraw or fake a terminal."""
    foul = {it for it in str(text) if unicodedata.category(it) in ("Cc", "Cf", "Cs", "Co")}
    return str(text).translate({ord(letter): "�" for letter in foul})


def soft(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text


def fitted(head: str, text: str) -> str:
    """One line; in a window that is too narrow for it the text stands below its head."""
    columns = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or len(head) + len(text) < columns:
        return f"{soft(head)} {text}"
    wrap = textwrap.TextWrapper(columns - 2, break_on_hyphens=False).wrap
    return "\n".join([*map(soft, wrap(head)), *(f"  {line}" for line in wrap(text))])


@dataclass(frozen=True, slots=True)
class Table:
    rows: Sequence[Row]
    columns: Columns

    def cells(self) -> Iterator[tuple[str, ...]]:
        fields = self.columns.values()
        for row in self.rows:
            named = ((it, row.get(it)) if isinstance(it, str) else ("", it(row)) for it in fields)
            yield tuple(clean(shown(name, value)) for name, value in named)

    def widths(self) -> list[int]:
        rows = zip(tuple(self.columns), *self.cells(), strict=True)
        return [max(map(len, column)) for column in rows]

    def __str__(self) -> str:
        """For a pipe: a line for each row, however long."""
        rows, widths = (tuple(self.columns), *self.cells()), self.widths()
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def drawn(self, styles: Sequence[str] = ()) -> "RichTable":
        """For a terminal: long cells but the first, a name to copy, are wrapped. Where the window
        is too narrow for that, the columns of least use are left out, and of two both are wrapped.
        With `styles`, one for each row, a row is one line, of which the last cell is cut."""
        from rich import box, console, table, text  # only where a person looks

        widths, heads = self.widths(), [*self.columns]
        least = widths[0] + 3 * len(widths) + sum(min(it, 24) for it in widths[1:])
        if (tight := least > console.Console().width) and len(heads) > 2:
            gone = next((it for it in _LEAVE.split() if it in heads), heads[-2])
            left = {it: self.columns[it] for it in heads if it != gone}
            fits = Table(self.rows, left).drawn(styles)
            if not styles:
                fits.caption = f"{fits.caption or 'not shown, as the window is narrow:'} {gone}"
            return fits

        drawn = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        drawn.expand, drawn.caption_justify = bool(styles), "left"
        for head, width in zip(heads, [0, *widths[1:]], strict=True):
            one_line = drawn.expand or (width <= 24 and not tight)
            drawn.add_column(head, overflow="ellipsis" if one_line else "fold", no_wrap=one_line)
        drawn.columns[-1].ratio = 1 if styles else None
        for cells, style in zip(self.cells(), styles or [""] * len(self.rows), strict=True):
            texts = (text.Text(cell, "" if style else _STYLES.get(cell, "")) for cell in cells)
            drawn.add_row(*texts, style=style)
        return drawn


def say(sentence: str) -> None:
    """To a person beside the answer."""
    print(clean(sentence), file=sys.stderr, flush=True)


def moment(text: str | None) -> str:
    """A time of the API in this machine's zone, which may be one that Python's own do not reach."""
    at = datetime.fromisoformat(text).timestamp() if text else None
    return "-" if at is None else str(datetime.fromtimestamp(int(at)))


def duration(seconds: float) -> str:
    whole = max(int(seconds), 0)  # the clock of another machine may be behind
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def shown(name: str, value: Any) -> object:
    """A field of the API for people: its name says the unit."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if name.endswith("_bytes"):
        mebibytes = value / 1048576
        return f"{mebibytes:.0f} MiB" if mebibytes < 10_000 else f"{mebibytes / 1024:.0f} GiB"
    if isinstance(value, int | float) and any(it in name for it in _SECONDS):
        if 0 < value < 1:
            return f"{round(value * 1000, 1):g} ms"
        return duration(value) if name.endswith("_seconds") else f"{value:.1f} s"
    if isinstance(value, float):
        if name.endswith("_wall") and abs(value) < 6e10:  # later years are beyond Python's
            return str(datetime.fromtimestamp(int(value)))
        return round(value, 3)
    return moment(value) if isinstance(value, str) and _TIME.fullmatch(value) else value


# Reading and asking


class Options(argparse.Namespace):
    """The options that were typed; each command's function gets them."""

    @property
    def client(self) -> Client:
        url = self.url or ("" if self.socket else os.environ.get("WA_AGENT_URL", ""))
        named = "--url" if self.url else "WA_AGENT_URL"
        key = self.key or os.environ.get("WA_AGENT_KEY", "")
        sockets = (Path(self.socket),) if self.socket else ()
        return Client(url, key, sockets, asked=f"; {named} named {url}" if url else "")

    def reader(self, doing: str) -> tuple[Path, Client]:
        """The agent.toml that is meant, and the agent that reads it, which is the one at the socket
        of these settings unless a socket or URL is named."""
        from agent.config.load import load_config

        agent, path = self.client, config_path(self.config, os.environ)
        if path and not (agent.url or agent.sockets or "WA_AGENT_SOCKET" in os.environ):
            agent = replace(agent, sockets=(load_config(path, os.environ).api_socket,))
        used = agent.get("/api/health")["agent"]["places"].get("config")
        if path is None or used is None or os.path.realpath(path) != os.path.realpath(used):
            why = f"give --config {used}, which the agent reads" if used else NO_CONFIG
            raise errors.InvalidRequest(f"cannot {doing}: {why}", field="config")
        return path, agent

    def ask(self, call: str, body: Body = None, doing: str = "", **query: Any) -> dict[str, Any]:
        """`call`: method and path; a path without a slash in front is below the instance's.
        `doing`: what stands on a terminal meanwhile. `wait=300`: the agent answers at the end."""
        method, _, path = call.partition(" ")
        path = path if path.startswith("/") else f"/api/instance/{self.id}/{path}"
        path = f"{path}?{urlencode(query, doseq=True)}" if query else path
        with self.progress(doing):
            return self.client.request(method, path, body)

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the options that were given."""
        return {name: vars(self)[name] for name in names if vars(self).get(name) is not None}

    def print(self, answer: Any, *lines: str | Row | Table, good: bool = True) -> int:
        """A row is printed field by field, and empty lines are left out; returns the exit status:
        0, or 1 without `good`."""
        if self.json:
            print(json.dumps(answer, indent=2, ensure_ascii=False))
        for line in () if self.json else filter(None, lines):
            if isinstance(line, Table) and sys.stdout.isatty():
                from rich.console import Console

                Console().print(line.drawn())
            elif isinstance(line, dict):
                for name, value in line.items():
                    print(fitted(name.ljust(max(map(len, line)) + 1), clean(value)))
            else:
                print(line)
        sys.stdout.flush()  # a caller that did something says so where the answer finds no room
        return 0 if good else 1

    def do(self, call: str, done: str, body: Body = None, **query: Any) -> int:
        """`done`: a sentence with fields of the answer in braces."""
        answer = self.ask(call, body, **query)
        return self.print(answer, clean(done.format_map(answer)))

    def print_line(self, answer: object, line: str, head: str = "") -> None:
        """One of many, which come one by one."""
        line = fitted(head, line) if head else line
        print(json.dumps(answer, ensure_ascii=False) if self.json else line, flush=True)

    def print_rows(self, rows: Sequence[Row], columns: Columns, nothing: str) -> int:
        return self.print(rows, Table(rows, columns) if rows else nothing)

    def print_list(self, path: str, columns: Columns, nothing: str) -> int:
        """Lists what the agent has there; its field is the path's last word."""
        rows = self.ask(f"GET {path}")[path.partition("?")[0].rpartition("/")[2]]
        return self.print_rows(rows, columns, nothing)

    def progress(self, words: str) -> AbstractContextManager[object]:
        """On a terminal the words stand there until the block is done; elsewhere they are said once
        it has taken a few seconds."""
        if self.json or not words:
            return nullcontext()
        if not sys.stderr.isatty():
            late = threading.Timer(3.0, say, [f"wa-agent: {words}"])
            late.start()
            (held := ExitStack()).callback(late.cancel)
            return held
        from rich import console, text

        return console.Console(stderr=True).status(text.Text(clean(words)))


Run = Callable[[Options], int]
Words = Mapping[str, str | tuple[str, dict[str, Any]]]
"""The arguments of a command, each with its help: `--flag`, `--option METAVAR`, `NAME`, `[NAME]` if
it may be left out, `dest=NAME`, `--flag=dest`; with `…` behind it, it may be repeated, with `!` it
must be given; `ONE|OTHER` is one of these words. In a pair also what argparse takes besides."""

NO_WORDS: Words = {}
CONFIG: Words = {
    "--config FILE": "agent.toml",
    "--state DIR": "the state directory",
    "--listen HOST:PORT": 'the HTTP address; "" = none',
}
"""Options for the settings that a command reads, and those that it sets over them."""


class Commands:
    """The words that may stand in one place of a command line."""

    def __init__(self, parser: argparse.ArgumentParser, **more: Any) -> None:
        self._among = parser.add_subparsers(metavar="COMMAND", **more)

    def add(
        self, name: str, run: Run, example: str = "", words: Words = NO_WORDS, **known: Any
    ) -> argparse.ArgumentParser:
        """`example`: what follows the command there; `known`: more that `run` finds among its
        options, but for `summary`, which is the docstring of `run` otherwise: what it does, and
        below an empty line its own words, as `Words`."""
        summary, _, own = cleandoc(known.pop("summary", run.__doc__)).partition("\n\n")
        told = (line.partition(": ") for line in re.sub(r"\n +", " ", own).splitlines())
        parser = self._add(name, summary, example)
        arguments = {word: text for word, text in words.items() if not word.startswith("-")}
        add_words(parser, {**arguments, **{word: text for word, _, text in told}, **words})
        add_common(parser)
        typed = {it.dest: "/".join(it.option_strings) or it.metavar for it in parser._actions}
        parser.set_defaults(run=run, typed=typed, parser=parser, **known)
        return parser

    def one(self, name: str, run: Run, example: str = "", **more: Any) -> argparse.ArgumentParser:
        """A command about one instance: its id comes first, `sales` in the example."""
        words = {"ID": "the instance", **more.pop("words", {})}
        return self.add(name, run, f"sales {example}", words, **more)

    def group(self, name: str, summary: str, example: str) -> "Commands":
        """A word that is followed by a command of its own."""
        return Commands(self._add(name, summary, example), required=True)

    def _add(self, name: str, summary: str, example: str) -> argparse.ArgumentParser:
        text = " ".join(summary.split()).rstrip(".")
        parser: Parser = self._among.add_parser(name, help=text[0].lower() + text[1:])
        parser.allow_abbrev, parser.description = False, f"{text[0].upper()}{text[1:]}."
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = f"example:\n  {parser.prog} {example}".rstrip()
        return parser


def add_words(parser: argparse._ActionsContainer, words: Words) -> None:
    for word, told in words.items():
        text, more = told if isinstance(told, tuple) else (told, {})
        names, _, metavar = word.rstrip("…!").partition(" ")
        how: dict[str, Any] = {"type": _VALUES.get(metavar), "required": "!" in word}
        how |= {"metavar": metavar} | ({"action": "append", "default": []} if "…" in word else {})
        if not word.startswith("-"):
            dest, _, shown = names.rpartition("=")
            metavar = shown.strip("[]")
            how = {"metavar": metavar, "type": _ARGUMENTS.get(metavar)}
            how |= {"nargs": "?"} if shown != metavar else {}
            how |= {} if how["type"] or "|" not in shown else {"choices": shown.split("|")}
            names = dest or metavar.lower()
        elif not metavar:
            names, _, dest = names.partition("=")
            how = {"action": "store_true", "dest": dest or None}
        parser.add_argument(*names.split("/"), help=text, **{**how, **more})


def add_common(parser: argparse.ArgumentParser) -> None:
    """Accepted before and after the command's name alike; the program's parser has the defaults."""
    missing = {"default": argparse.SUPPRESS}
    words: Words = {
        "--json": ("print JSON", missing),
        "--socket PATH": ("the agent's Unix socket", missing),
        "--url URL": ("ask http://HOST:PORT instead", missing),
        "--key KEY": ("the key for --url; better: the variable WA_AGENT_KEY", missing),
    }
    add_words(parser.add_argument_group("everywhere"), words)


def seconds(text: str) -> float:
    if not 0 <= (given := float(text)) < 1e9:
        raise ValueError
    return given


def read_name(thing: str, pattern: str, text: str) -> str:
    """A name that becomes a part of an address: no other letters are allowed."""
    if re.fullmatch(pattern, text) and text.strip("."):
        return text
    raise errors.InvalidRequest(f"cannot use {text!r:.80} as the name of a {thing}")


def path(text: str) -> str:
    """An empty one would be the working folder, and only a shell reads ~ as the home."""
    if not text or text.startswith("~"):
        raise errors.InvalidRequest(f"cannot use {text!r:.80} as a path: write the whole path")
    return text


_AGENTS = "[A-Za-z0-9._-]{1,96}"
_ARGUMENTS: Mapping[str, Callable[[str], Any]] = {
    **{"ID": parse_instance_id, "FILE": lambda text: Path(path(text)), "SOURCE": path},
    "all|ID": lambda text: text if text == "all" else parse_instance_id(text),
    "NAME": partial(read_name, "copy", _AGENTS),
    "GROUP": partial(read_name, "group", ".+"),
    "KEY": partial(read_name, "key: give its id, which wa-agent key list shows", _AGENTS),
    **{it.upper(): partial(read_name, it, ID_PATTERN) for it in ("backend", "program", "webhook")},
}
_VALUES: dict[str, Callable[[str], Any]] = {"SECONDS": seconds, "N": int, "CURSOR": int}
_VALUES |= {"DIR": path, "FILE": path, "PATH": path}
"""How a word is read, by its name in the help: an argument's, and an option's."""
