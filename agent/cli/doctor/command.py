"""`doctor`: checks of this installation, each finding with advice; a bundle for support."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import VERSION
from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, client_of, wants_json
from agent.cli.doctor.agent_settings import names_an_agent_here, settings_in_use
from agent.cli.terminal.show import print_json, print_table
from agent.errors import AgentUnreachable, ConfigError, WaError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.host.machine.findings import Finding


HELLO_SECONDS = 2.0
"""Two of them, and all that is found without the agent, are within five seconds."""


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "doctor",
        doctor,
        "check this installation and say what to do; exit status 1 when something is wrong",
        "wa-agent doctor --bundle /tmp/for-support.tar.gz",
    )
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    parser.add_argument("--state", metavar="DIR", help="the state directory")
    parser.add_argument("--listen", metavar="HOST:PORT", help=argparse.SUPPRESS)
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write an archive for support, without secrets"
    )


def doctor(options: argparse.Namespace) -> int:
    from agent.host.machine.findings import Level

    client = replace(client_of(options), hello_seconds=HELLO_SECONDS)
    if client.url or names_an_agent_here(client):
        client = _if_it_answers(client)
    path, overrides = settings_in_use(options, client)
    config, findings = _config(path, overrides)
    if not (client.url or names_an_agent_here(client)):
        # The very agent that these settings are for, not whichever is found first.
        client = Client(sockets=(config.api_socket,), hello_seconds=HELLO_SECONDS)
        client = _if_it_answers(client)
    findings += list(_examine(config, client))
    findings += list(_backends(config, client, path))
    findings += list(_webhooks(config, client))
    if options.bundle:
        from agent.cli.doctor.bundle import write_bundle

        write_bundle(Path(options.bundle), config, [asdict(one) for one in findings], client)
    if wants_json(options):
        bundle = options.bundle or None
        print_json({"findings": [asdict(one) for one in findings], "bundle": bundle})
    else:
        _print(findings)
        if options.bundle:
            print(f"{options.bundle} written; look through it before you send it")
    return 1 if any(one.level is Level.WRONG for one in findings) else 0


def _if_it_answers(client: Client) -> Client:
    """One that hangs is waited for once, and never again: the rest is found without it."""
    try:
        client.open_socket().close()
    except AgentUnreachable as error:
        return replace(client, silent=str(error))
    return client


def _print(findings: "list[Finding]") -> None:
    from agent.host.machine.findings import Level

    rows = [(one.level.value, one.check, one.sentence) for one in findings]
    print_table(("", "CHECK", "FOUND"), rows)
    for one in findings:
        if one.level is not Level.OK:
            print(f"{one.check}: {one.advice}")


def _config(path: Path | None, overrides: Mapping[str, str]) -> "tuple[Config, list[Finding]]":
    """What is configured; the defaults where the file is wrong, so that the rest is checked."""
    from agent.config import Config, load_config, unused_variables
    from agent.host.machine.findings import note, ok, wrong

    try:
        config = load_config(path, os.environ, overrides=overrides)
    except ConfigError as error:
        return Config(), [wrong("config", str(error), "correct it: wa-agent config check")]
    advice = "unset it for the agent if it is not meant for it"
    unused = unused_variables(os.environ, config.backend)
    return config, [
        ok("config", f"{path or 'the defaults'}: good"),
        *(note("environment", sentence, advice) for sentence in unused),
    ]


def _examine(config: "Config", client: Client) -> "Iterator[Finding]":
    from agent.config import INSTALLED_STATE
    from agent.host.machine import doctor as machine
    from agent.host.machine import systemd_doctor as systemd

    state, sessions = config.agent.state_path, config.session_root
    yield machine.check_python()
    yield machine.check_clock()
    yield machine.check_disk(state if state.is_dir() else Path("/"))
    yield from _missing_state(config)
    yield from machine.check_permissions(state, sessions, config.api_socket)
    yield from systemd.check_systemd()
    if state == INSTALLED_STATE:
        yield from systemd.check_installation()
    engines, findings = _agent(client, state)
    yield from findings
    yield machine.check_limits(_holder(state), sum(engines.values()))
    yield _database(state / "agent.db", client)
    kinds = _browser_kinds(config)
    yield from _browser(config, kinds, wanted="web" in engines or bool(kinds))
    yield from _node(config, wanted="baileys" in engines or bool(_settings_of(config, "baileys")))


def _missing_state(config: "Config") -> "Iterator[Finding]":
    from agent.config import INSTALLED_STATE
    from agent.host.machine.findings import wrong
    from agent.supervise.state_folder import StatePlaces, state_is_missing, used_mark, was_used

    state = config.agent.state_path
    used = used_mark(os.environ, installed=state == INSTALLED_STATE)
    places = StatePlaces(state, config.session_root, config.cache_root, used)
    if was_used(places) and state_is_missing(places):
        sentence = f"{state} is empty, but {used} says that an agent used a state here before"
        advice = f"mount or put back the state folder; to begin with an empty one: rm {used}"
        yield wrong("state", sentence, advice)


def _backends(config: "Config", client: Client, path: Path | None) -> "Iterator[Finding]":
    if config.backend:
        from agent.cli.doctor.backends import examine

        yield from examine(config, client, path)


def _webhooks(config: "Config", client: Client) -> "Iterator[Finding]":
    if config.webhook:
        from agent.cli.doctor.webhooks import examine

        yield from examine(config, client)


def _agent(client: Client, state: Path) -> "tuple[dict[str, int], list[Finding]]":
    """Instances by engine, and what the running agent says of itself."""
    from agent.host.machine.findings import note, ok, wrong

    try:
        health = client.get("/api/health")
    except AgentUnreachable as error:
        cause = str(error).rpartition("; ")[0]
        if holder := _holding(state):
            advice = "systemctl restart wa-agent: sessions stay connected; keep its log for us"
            return {}, [wrong("agent", f"{cause}; {holder}", advice)]
        advice = "start it: systemctl start wa-agent; then journalctl -u wa-agent"
        return {}, [wrong("agent", cause, advice)]
    except WaError as error:
        return {}, [wrong("agent", str(error), "journalctl -u wa-agent says more")]
    agent, found = health["agent"], []
    if agent["version"] != VERSION:
        words = f"version {agent['version']} runs, {VERSION} is installed"
        found.append(note("agent", words, "systemctl restart wa-agent; sessions stay connected"))
    elif health["status"] == "sessions_in_trouble":
        names = ", ".join(health["in_trouble"][:10])
        words = f"it runs; {len(health['in_trouble'])} sessions are in trouble: {names}"
        found.append(note("agent", words, "wa-agent why ID, for each of them"))
    elif health["status"] != "ok":
        words = "it runs and is not ready" if agent["alive"] else "it runs and its loop hangs"
        found.append(note("agent", words, "wa-agent health; journalctl -u wa-agent"))
    else:
        words = f"version {VERSION} runs, {health['instances']['total']} instances"
        found.append(ok("agent", words))
    its = agent.get("places", {}).get("state", str(state))
    if its != str(state):
        words = f"that agent runs on {its}; these findings are about {state}"
        found.append(note("agent", words, "run doctor on its machine, or name --state"))
    for cause in agent.get("not_listening", {}).values():
        advice = "the agent tries again by itself; sessions run meanwhile"
        found.append(wrong("port", cause, advice))
    if agent["dbus_connected"] is False:
        found.append(wrong("dbus", "the agent lost D-Bus", "systemctl status dbus"))
    found += _alerts(client)
    return _engines(client), found


def _alerts(client: Client) -> "Iterator[Finding]":
    from agent.host.machine.findings import note, ok

    board = client.get("/api/alerts")
    loud = [
        one["name"]
        for one in board["alerts"]
        if one["state"] == "firing" and one["severity"] != "none"
    ]
    if loud:
        names = ", ".join(sorted(set(loud)))
        yield note("alerts", f"{len(loud)} fire: {names}", "wa-agent alerts")
    else:
        yield ok("alerts", "none fires")
    if problem := board["alertmanager_problem"]:
        yield note("alertmanager", problem, "is [alerts] alertmanager right, and does it run?")


def _engines(client: Client) -> dict[str, int]:
    engines: dict[str, int] = {}
    after = ""
    while True:
        query = {"limit": 1000, **({"after": after} if after else {})}
        page = client.get("/api/instances", query)
        for one in page["instances"]:
            engines[one["engine"]] = engines.get(one["engine"], 0) + 1
        after = page.get("next") or ""
        if not after:
            return engines


_STATES = {
    "T": "is stopped by a signal",
    "t": "is stopped by a debugger",
    "D": "waits for a disk",
    "R": "is busy",
    "S": "waits for something",
    "Z": "has ended and is not reaped",
}


def _holding(state: Path) -> str:
    """What the process does that holds the state directory; "" where there is none."""
    pid = _holder(state)
    if pid is None:
        return ""
    try:
        word = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return f"its process {pid} is there and {_STATES.get(word, f'is in state {word}')}"


def _holder(state: Path) -> int | None:
    """The agent's process: who holds the state directory writes its number into the lock."""
    try:
        return int((state / "lock").read_text().strip())
    except (OSError, ValueError):
        return None


def _database(path: Path, client: Client) -> "Finding":
    from agent.host.machine.findings import note, ok, wrong
    from agent.store.offline import check_unused, lock_of

    repaired = "restart the agent: it rebuilds the database from the readable rows"
    if not path.exists():
        return note("database", f"{path} is not there", "the agent creates it at its first start")
    try:
        with lock_of(path.parent) as free:
            found = check_unused(path) if free else _checked_by_agent(client)
    except AgentUnreachable:
        return note("database", "an agent holds it and does not answer", "see the check: agent")
    except WaError as error:
        return wrong("database", str(error), repaired)
    if found != "ok":
        return wrong("database", found, repaired)
    if kept := _set_aside_beside(path):
        advice = "the log and `wa-agent events` name the damage; remove files that you do not need"
        return note("database", f"whole; set aside by a start: {', '.join(kept)}", advice)
    return ok("database", "whole")


def _set_aside_beside(path: Path) -> list[str]:
    """What starts kept of a damaged database, and of damaged rows."""
    with suppress(OSError):
        kept = (
            *path.parent.glob(f"{path.name}.damaged-*Z*"),
            *path.parent.glob(f"{path.name}.rows-*"),
        )
        return sorted(part.name for part in kept if not part.name.endswith(("-wal", "-shm")))
    return []


def _checked_by_agent(client: Client) -> str:
    return str(client.post("/api/database/check")["found"])


def _browser_kinds(config: "Config") -> set[str]:
    """What the web instances are set to, as far as can be known without an agent."""
    from agent.engines.web.browser.arguments import BINARIES
    from agent.engines.web.settings import SHELL

    every = _settings_of(config, "web")
    return {str(settings.get("browser", SHELL)) for settings in every} & set(BINARIES)


def _settings_of(config: "Config", engine: str) -> list[Mapping[str, Any]]:
    """The settings of each instance of that engine that is declared or has a folder."""
    from agent.vault.identity import scan

    every: list[Mapping[str, Any]] = [
        one.settings for one in config.instance if one.engine == engine
    ]
    with suppress(OSError, WaError):
        for one in scan(config.session_root):
            if one.identity and one.identity.instance.engine == engine:
                every.append(one.identity.instance.settings)
    return every


def _browser(config: "Config", kinds: set[str], *, wanted: bool) -> "Iterator[Finding]":
    """Looked at before the first web instance, too, once a browser or the bundle is installed."""
    from agent.cli.doctor.worker_access import environment_of
    from agent.config import INSTALLED_STATE
    from agent.engines.web.doctor import examine
    from agent.engines.web.settings import SHELL
    from agent.host.machine.findings import note, ok, wrong
    from agent.host.units import INSTANCES

    # A unit's worker has its unit's environment, not that of whoever asks here.
    installed = config.agent.state_path == INSTALLED_STATE
    env = environment_of(INSTANCES.template) if installed else os.environ
    found = examine(config.cache_root, env, kinds or {SHELL})
    if not wanted and {"browser_missing", "bundle_missing"} <= {one.code for one in found}:
        yield ok("browser", "no web instance and no part of the web engine: not checked")
        return
    for one in found:
        make: Callable[..., Any] = wrong if one.serious and wanted else note
        yield make("browser", one.sentence, one.cure)
    if not found:
        yield ok("browser", "the web engine can run")


def _node(config: "Config", *, wanted: bool) -> "Iterator[Finding]":
    """Looked at before the first baileys instance, too, once Node and packages are there."""
    from agent.cli.doctor.worker_access import environment_of
    from agent.config import INSTALLED_STATE
    from agent.engines.baileys.doctor import examine
    from agent.host.machine.findings import ok, wrong
    from agent.host.units import INSTANCES

    installed = config.agent.state_path == INSTALLED_STATE
    env = environment_of(INSTANCES.template) if installed else os.environ
    found = examine(config.cache_root, env, installed=installed)
    if found and not wanted:
        yield ok("baileys", "no baileys instance, and not all that the engine needs: not looked at")
        return
    for one in found:
        yield wrong("baileys", one.sentence, one.cure)
    if not found:
        yield ok("baileys", "the baileys engine can run")
