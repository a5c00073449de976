"""Trying it out. `sandbox`: let its phone scan, let contacts write, see what they got, cause
faults. `demo`: the agent in the foreground, with one sandbox instance to scan and nothing to
install."""

import json
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from agent.cli.client import Client
from agent.cli.command import Commands, Options, clean
from agent.cli.session import draw_code, file_fields
from agent.errors import InvalidRequest, WaError

FAULTS_SHOWN = """\
  crash    hang      zombie    slow          drop       leak
  bad-mac  prekey    logout    ban           temp-ban   conflict
  outdated passkey   stuck-loading           corrupt-files"""
"""Laid out by hand: argparse would break a name at its hyphen."""


def add(commands: Commands) -> None:
    summary, example = "drills with the sandbox engine", "fault sales zombie --for 30"
    among = commands.group("sandbox", summary, example)
    among.one("scan", scan)
    parser = among.one("fault", fault, "zombie --for 30")
    parser.description = f"Cause a fault, one of:\n\n{FAULTS_SHOWN}"
    among.one("clear", clear)
    among.one("say", say, "5511999990000 hello")
    among.one("heard", heard)
    commands.add("demo", demo, listen="127.0.0.1:8470")


def scan(options: Options) -> int:
    """Let the phone scan the code."""
    return options.do("POST sandbox/scan", f"{options.id} scanned")


def fault(options: Options) -> int:
    """Cause a fault.

    FAULT: name of the fault
    --for SECONDS: duration of the fault
    """
    done, body = f"{options.id} fails: {options.fault}", options.given("fault", "for")
    return options.do("POST sandbox/fault", done, body)


def clear(options: Options) -> int:
    """End every fault."""
    return options.do("POST sandbox/fault", f"{options.id} has no more faults", {"fault": "clear"})


def say(options: Options) -> int:
    """Let a contact write.

    CONTACT: who writes: a number or a jid
    [TEXT]: the text, caption, emoji, option or state
    --type TYPE: of the message: text, image, audio, location, poll, …
    --kind KIND: message, message_reaction, message_delete, call, …
    --of MESSAGE_ID: the message that it is about
    --group JID: the group in which it is written
    --from-me: the account's owner writes it
    --count N: number of messages, which are numbered
    --file FILE: a file that it brings
    --fields JSON: more of its record: {"quote": …, "mentions": …}
    """
    names = ("contact", "text", "type", "kind", "of", "group", "from_me", "count")
    body = options.given(*names)
    if options.file is not None:
        body |= file_fields(Path(options.file))
    if options.fields is not None:
        try:
            body["fields"] = json.loads(options.fields)
        except ValueError as error:
            raise InvalidRequest(f"cannot use --fields: it is no JSON ({error})") from None
    return options.do("POST sandbox/say", f"{options.id} has a message coming", body)


def heard(options: Options) -> int:
    """Show what the contacts got.

    --after CURSOR: those after this one
    --limit N: how many at most, default 100
    """
    answer = options.ask("GET sandbox/heard", **options.given("after", "limit"))
    shown = ("cursor", "chat", "id", "type", "text")
    lines = [clean("  ".join(str(m.get(n, "")) for n in shown)) for m in answer["messages"]]
    nothing = "" if lines else "no contact got a message"
    more = f"more: --after {answer['next']}" if answer["more"] else ""
    return options.print(answer, *lines, nothing, more)


SETTINGS = Path(__file__).with_name("demo.toml")
INSTANCE = "demo"


def demo(options: Options) -> int:
    """Run the agent with one sandbox instance to scan, until Ctrl+C.

    --state DIR: where its state stays; XDG_STATE_HOME otherwise
    --listen HOST:PORT: address of the HTTP interface, default %(default)s
    """
    from agent.daemon.main import main

    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    state = Path(options.state or home / "wa-agent" / "demo").absolute()
    # Sessions are in it: for its owner alone. What is there already keeps its rights.
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    greeter = threading.Thread(target=_greet, args=(state, options.listen), daemon=True)
    greeter.start()
    overrides = {"agent.state_path": str(state), "api.listen": options.listen}
    status = main(SETTINGS, overrides)
    if not status:
        print(f"Its state stays in {state}; the next demo goes on with it.")
    return status


def _greet(state: Path, listen: str) -> None:
    """Show the way in once the agent answers."""
    socket = state / "api.sock"
    command = f"WA_AGENT_SOCKET={shlex.quote(str(socket))} {shlex.quote(sys.argv[0])}"
    client, deadline = Client(sockets=(socket,)), time.monotonic() + 60.0
    greeting = ""
    while not greeting:
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
        with suppress(OSError, WaError):  # it is still starting
            # Another agent's lock is named by this one, which then ends.
            if (state / "lock").read_text().strip() != str(os.getpid()):
                continue
            taken = client.get("/api/health")["agent"]["not_listening"]
            status = client.get(f"/api/instance/{INSTANCE}")["connection_status"]
            if status == "QR_REQUIRED":
                code, _ = draw_code(client, INSTANCE)
                greeting = f"{code}Scan it:    {command} sandbox scan {INSTANCE}"
            elif status == "CONNECTED":
                greeting = f"The instance {INSTANCE} is connected; its session was restored."
    print(greeting)
    if taken:
        print(f"No HTTP yet: another program has {listen}; another port: --listen 127.0.0.1:PORT")
    else:
        print(f"Dashboard:  http://{listen}/")
    print(f"Look:       {command} list")
    print("Stop:       Ctrl+C", flush=True)
