"""This installation: its agent in the foreground, also to try it out (`demo`, a sandbox session to
scan, nothing to install); its version, its configuration, the keys for its HTTP interface; and a
service of this machine, from a program that pip installed."""

import gc
import os
import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from agent import BUILD, VERSION, errors, files
from agent.cli.client import INSTALLED_CONFIG, Client, check_target, checkout, config_path
from agent.cli.command import CONFIG, Commands, Options, Words, say, version_line
from agent.core import addresses, setting


def add(commands: Commands) -> None:
    commands.add("run", run, "--state .state --listen 127.0.0.1:8470", CONFIG)
    commands.add("demo", demo, listen="127.0.0.1:8470")
    commands.add("version", version)
    example = "--config agent.toml"
    among = commands.group("config", "the configuration", f"check {example}")
    for name, does in {"check": check_config, "show": show_config, "init": init_config}.items():
        among.add(name, does, example, CONFIG)
    among = commands.group("key", "keys for the HTTP interface", "add shop --scope operate")
    words: Words = {"NAME": ("name of the key, such as its program", {"type": str})}
    among.add("add", add_key, "prometheus --scope read", words)
    among.add("list", list_keys)
    among.add("revoke", revoke, "prometheus")
    engine = {"dest": "engine", "choices": ("baileys",)}
    words = {"--with ENGINE": ("baileys: also fetch the npm packages of this engine", engine)}
    commands.add("install-units", install_units, words=words)


def run(options: Options) -> int:
    """Run the agent in the foreground."""
    # The agent's libraries cost every other command half a second. What the imports left over goes
    # at once, not in the first of many collections.
    gc.disable()
    from agent.daemon.main import main

    gc.collect()
    gc.enable()
    return main(config_path(options.config, os.environ), overrides_of(options))


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
    threading.Thread(target=_greet, args=(state, options.listen), daemon=True).start()
    status = main(SETTINGS, {"agent.state_path": str(state), "api.listen": options.listen})
    if not status:
        print(f"Its state stays in {state}; the next demo goes on with it.")
    return status


def _greet(state: Path, listen: str) -> None:
    """Show the way in once the agent answers."""
    from agent.cli.session import draw_code

    socket = state / "api.sock"
    program = shlex.quote(str(Path(sys.argv[0]).absolute()))
    command = f"WA_AGENT_SOCKET={shlex.quote(str(socket))} {program}"
    client, deadline, greeting = Client(sockets=(socket,)), time.monotonic() + 60.0, ""
    while not greeting:
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
        with suppress(OSError, errors.WaError):  # it is still starting
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
    no_http = f"No HTTP yet: another program has {listen}; another port: --listen 127.0.0.1:PORT"
    print(greeting, no_http if taken else f"Dashboard:  http://{listen}/", sep="\n")
    print(f"Look:       {command} list\nStop:       Ctrl+C", flush=True)


def given_settings(options: Options) -> dict[str, str]:
    """The settings that the command line gives."""
    given = {"agent.state_path": options.state, "api.listen": options.listen}
    return {key: value for key, value in given.items() if value is not None}


def overrides_of(options: Options) -> dict[str, str]:
    """The settings over those of the file; a checkout has its state in its own folder."""
    top = checkout()
    named = config_path(options.config, os.environ) or "WA_AGENT_AGENT__STATE_PATH" in os.environ
    state = {"agent.state_path": f"{top}/.state"} if top and not named else {}
    return {**state, **given_settings(options)}


def version(options: Options) -> int:
    """Print the version."""
    return options.print({"version": VERSION, "build": BUILD}, version_line())


def check_config(options: Options) -> int:
    """Read the configuration and name its errors."""
    from agent.config import config, load
    from agent.webhooks import courier, part, settings

    path, given = config_path(options.config, os.environ), overrides_of(options)
    read = load.load_config(path, os.environ, overrides=given)
    hooks, ids = settings.webhooks_of(read), {str(it.id) for it in read.instance}
    try:  # an agent starts with the faults below, and that backend or webhook does not work
        for backend in read.backend:
            config.with_secrets(backend)
        for hook in hooks:
            courier.open_files(hook)
    except errors.ConfigError as error:
        cure = "write that file, or give the key another one; the agent must be able to read it"
        raise errors.ConfigError(f"{error}; {cure}", field=error.field) from error
    part.check_kinds(read)
    warnings, keys = [*read.warnings], read.agent.state_path / "fleet"
    with suppress(OSError):  # not here yet, or closed to this user
        if "https:" in str(read.rows.get("fleet")) and not any(keys.glob("*.pem")):
            warnings.append(f"[fleet] store is https, without {keys}/*.pem: wa-agent fleet join")
        ids |= {it.name for it in read.session_root.iterdir()}
    for hook in hooks:
        for id in (it for it in hook.instances if it not in ids and {*"*?"}.isdisjoint(it)):
            known = f"webhook {hook.name}: no instance {id} yet; {setting.nearest(id, ids)}"
            warnings.append(known.rstrip("; "))
        host = (urlsplit(hook.url).hostname or "").replace("localhost", "127.0.0.1")
        # A name is judged once it is resolved.
        if "private = true" in (why := addresses.refuse_address(host, private=hook.private)):
            warnings.append(f"nothing is sent to webhook {hook.name}, at {host}: {why}")
    for sentence in () if options.json else warnings:
        say(f"wa-agent: {sentence}")
    shown = {"good": True, "file": path and str(path), "warnings": warnings}
    return options.print(shown, f"{path or 'the defaults'}: {'usable' if warnings else 'good'}")


def show_config(options: Options) -> int:
    """Show every setting."""
    from agent.config import config, load

    path, given = config_path(options.config, os.environ), overrides_of(options)
    shown = config.without_secrets(load.load_config(path, os.environ, overrides=given))
    text = config.render_config(shown, only_changed=False).rstrip()
    return options.print(config.tables_of(shown), text)


def init_config(options: Options) -> int:
    """Write a commented configuration.

    --force: replace a file
    """
    from agent.config import config, load
    from agent.vault.folder import explain

    # Where links lead; `Path.resolve` fails by itself on a link to itself.
    target = Path(os.path.realpath(options.config or INSTALLED_CONFIG))
    # Only what the command line gives: an older file must not flow into the new one.
    text = config.render_config(load.load_config(None, {}, overrides=given_settings(options)))
    check_target(target, force=options.force)
    try:
        before = target.stat() if target.exists() else None
        mode, group = (before.st_mode & 0o777, before.st_gid) if before else (0o644, None)
        # Written in place, a full disk or a kill would leave half a file.
        files.write_whole(target, text.encode(), mode=mode, group=group)
    except OSError as error:
        raise explain("write", target, error) from error
    done = f"{target} written; check it with: wa-agent config check --config {target}"
    return options.print({"file": str(target)}, done)


def add_key(options: Options) -> int:
    """Make a key and print it, once.

    --scope SCOPE…!: read, operate, admin (each for every session), or instance:ID (operate, for
        that one); may be repeated
    """
    made = options.ask("POST /api/keys", {"name": options.name, "scopes": options.scope})
    try:
        options.print_line(made, made["token"])
    except OSError as error:
        options.ask(f"DELETE /api/keys/{made['id']}")
        raise OSError(f"{errors.cause_of(error)}; the key that no one saw is revoked") from error
    known = {f"instance:{it['id']}" for it in options.client.instances()}
    for scope in {it for it in options.scope if ":" in it} - known:
        say(f"wa-agent: {scope} opens nothing yet: there is no such instance")
    return 0


def list_keys(options: Options) -> int:
    """List the keys."""
    columns = {"ID": "id", "NAME": "name", "SCOPES": "scopes", "CREATED": "created"}
    return options.print_list("/api/keys", columns, "no keys")


def revoke(options: Options) -> int:
    """Revoke a key.

    key_id=KEY: its id, as `key list` shows it, or a name that no other key has
    """
    return options.do(f"DELETE /api/keys/{options.key_id}", "{id} revoked")


PREFIX = "/usr/local/lib/wa-agent"
_HIDDEN = tuple(map(Path, ("/home", "/root", "/tmp", "/var", "/run")))
"""The services cannot read below these."""
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def install_units(options: Options) -> int:
    """Make this program, installed by pip as root, a service of the machine.

    --remove: take the service away; every session stays
    """
    program = Path(sys.prefix)
    share = program / "share" / "wa-agent" / "scripts"
    if sys.prefix == sys.base_prefix or not (share / "install-units").is_file():
        words = f"cannot install units for {program}: install the program by pip into a virtual"
        words += " environment of its own, as /opt/wa-agent-venv; a checkout has scripts/install"
        raise errors.Refused(words, code="no_environment")
    if os.geteuid() != 0:
        raise errors.Refused("cannot install units: run it as root", code="not_root")
    _refuse_foreign(program)
    baileys = ("--baileys", "yes") if options.engine else ()
    arguments = (share / "install-units", "--prefix", PREFIX, "--program", program, *baileys)
    if options.remove:
        arguments = (share / "uninstall", "--prefix", PREFIX)
    return subprocess.run(["/bin/sh", *arguments], env=_ENV, check=False).returncode


def _refuse_foreign(program: Path) -> None:
    """Root and the services run what lies there: root alone may be able to change it."""
    python = Path(sys.executable).resolve()
    for place in (program.resolve(), python):
        if any(place.is_relative_to(hidden) for hidden in _HIDDEN):
            raise errors.Refused(f"cannot install units: no service reads {place}", code="hidden")
    paths = {python, program, *program.rglob("*")}
    # A link's target counts too, and every folder on the way to it. Where it leads to nothing, the
    # folders say who may put something there.
    paths |= {path.resolve() for path in paths}
    paths |= {folder for path in paths for folder in path.parents}
    for path in sorted(filter(os.path.lexists, paths)):
        if (status := path.lstat()).st_uid or (not path.is_symlink() and status.st_mode & 0o022):
            words = f"cannot install units: not only root may change {path}"
            raise errors.Refused(words, code="not_only_roots")
