"""`doctor`: checks of this installation, each finding with its cure: its clock, disk, rights,
units, its agent, the programs that engines need (a browser, Node), and each backend: what the agent
says of it, its secrets, its Redis. Programs, webhooks and the fleet have a check in their room."""

import ctypes
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import VERSION, errors, files
from agent.cli.agent import overrides_of
from agent.cli.client import CLOSED, Client, Finding, Installation, config_path, note, ok, wrong
from agent.cli.command import CONFIG, Commands, Options, Table
from agent.config.config import BackendDeclaration, Config, Declaration, hide_secrets
from agent.config.load import load_config
from agent.core.words import BEHIND, InstanceId, counted
from agent.engines.baileys import node as baileys
from agent.engines.web import doctor as web
from agent.engines.web.browser.process import BINARIES
from agent.engines.web.rules import SHELL
from agent.fleet import commands as fleet
from agent.fleet.settings import fleet_of
from agent.host import units
from agent.moving import program_commands
from agent.vault.identity import scan
from agent.webhooks import commands as webhooks

_PLACES = {
    **{"state": "agent.state_path", "sessions": "agent.session_storage_path"},
    **{"cache": "agent.cache_path", "socket": "api.socket"},
}


def add(commands: Commands) -> None:
    commands.add("doctor", doctor, "--json", words=CONFIG)


def doctor(options: Options) -> int:
    """Check this installation and give advice; exit status 1 when something is wrong."""
    client, path = options.client, config_path(options.config, os.environ)
    overrides, named = overrides_of(options), client.sockets or os.environ.get("WA_AGENT_SOCKET")
    if named and not (client.url or options.config or options.state):
        with suppress(errors.WaError):  # that agent's settings; without an answer, these
            path, overrides = _used_by(client, path, overrides)
    config, findings = Config(), list[Finding]()
    try:
        config = load_config(path, os.environ, overrides=overrides)
        findings.append(ok(f"{path or 'the defaults'}: good", check="config"))
    except errors.ConfigError as error:  # the other checks run on the defaults
        findings.append(wrong(str(error), "correct it: wa-agent config check", check="config"))
    findings += [note(it, "correct it, or unset it", check="config") for it in config.warnings]
    if not (client.url or named):
        # The agent of these settings, not the first one that answers.
        client = Client(sockets=(config.api_socket,))
    findings += examine(Installation(config, client, path))
    rows = [asdict(finding) for finding in findings]
    table = Table(rows, {"": "level", "CHECK": "check", "FINDING": "sentence"})
    cures = (f"{row['check']}: {row['advice']}" for row in rows if row["advice"])
    good = all(row["level"] != "wrong" for row in rows)
    return options.print({"findings": rows}, table, *cures, good=good)


def _used_by(client: Client, path: Path | None, over: dict[str, str]) -> Any:
    """The file of the agent that answers, and its places over those of the file."""
    places = client.get("/api/health")["agent"]["places"]
    path = Path(places["config"]) if "config" in places else path
    return path, over | {key: places[name] for name, key in _PLACES.items() if name in places}


def lacking(client: Client, id: str, engine: str) -> Iterator[str]:
    """Parts that this machine lacks to run that new instance, each with its cure."""
    check = {"web": browser, "baileys": node}.get(engine, program_commands.examine)
    with suppress(errors.WaError, OSError):  # what this user may not see, `doctor` reports
        path, overrides = _used_by(client, None, {})
        settings = client.get(f"/api/instance/{id}/details")["settings"]
        own = Declaration(InstanceId(id), engine, settings=settings)
        config = replace(load_config(path, os.environ, overrides=overrides), instance=(own,))
        for it in check(Installation(config, client, path)):
            if it.level == "wrong" and it.check in ("", f"program {settings.get('program')}"):
                yield f"{it.sentence}; {it.advice}"


def examine(here: Installation) -> Iterator[Finding]:
    """The checks in their order, each with the cure of what it finds. A check only looks, and one
    that cannot look says so and hides no other."""
    for name, check, cure in (
        ("clock", clock, "run timedatectl set-ntp true, or install chrony"),
        ("disk", disk, "remove unneeded files; wa-agent trash list: retired sessions"),
        ("state", state, "chmod o-rwx, and find out which program gave the right"),
        ("kernel", kernel, ""),
        ("units", unit_files, "run scripts/install again"),
        ("memory limits", unit_memory, ""),
        ("agent", agent, "journalctl -u wa-agent says more"),
        ("database", database, "systemctl restart wa-agent: it rebuilds the database"),
        ("browser", browser, ""),
        ("baileys", node, ""),
        ("backend", backends, ""),
        ("program", program_commands.examine, ""),
        ("webhook", webhooks.examine, ""),
        ("fleet", fleet_store, "write the members there: fleet.toml of plan-MACHINE.tar has them"),
        ("fleet", fleet.examine, "wa-agent fleet status; then agent/fleet/README.md"),
    ):
        units_serve = here.installed and here.config.agent.host != "process"
        if units_serve or name not in ("units", "memory limits"):
            try:
                for finding in check(here):
                    advice = finding.advice or ("" if finding.level == "ok" else cure)
                    yield replace(finding, check=finding.check or name, advice=advice)
            except PermissionError as error:
                words = f"not checked: {error.filename} is closed to this user"
                yield replace(note(words, "sudo wa-agent doctor"), check=name)


UNITS = (
    *(units.AGENT_SERVICE, units.AGENT_SOCKET, units.INSTANCES.template, units.INSTANCES_SLICE),
    *(units.AGENT_HTTP_SOCKET, "polkit.service"),
)
RULES = [Path(folder, "polkit-1/rules.d/50-wa-agent.rules") for folder in ("/usr/share", "/etc")]
_VERSION_2 = "boot with systemd.unified_cgroup_hierarchy=1"


def clock(_: Installation) -> Iterator[Finding]:
    """WhatsApp refuses a client whose clock is far off, and certificates look invalid."""
    # Without a change: the kernel's view of its clock; TIME_ERROR is 5.
    bad = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == 5
    yield note("the clock is not synchronized") if bad else ok("set")


def disk(here: Installation) -> Iterator[Finding]:
    path = here.state if here.state.is_dir() else Path("/")
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    share = space.f_bavail / space.f_blocks if space.f_blocks else 1.0
    words = f"{free / (1 << 30):.1f} GiB free ({share:.0%}) at {path}"
    if space.f_flag & os.ST_RDONLY or files.refuses_writes(path):
        yield wrong(f"{path} is read-only", "look at the disk: dmesg; mount it writable")
    elif space.f_files and space.f_favail == 0:
        yield wrong(f"no free inode at {path}", "remove small files there")
    elif free < 64 << 20:
        yield wrong(words)
    else:
        yield note(words) if share < 0.10 else ok(words)


def state(here: Installation) -> Iterator[Finding]:
    """Only the agent, its workers and root may read sessions or use the socket."""
    from agent.daemon.state_folder import state_is_missing, used_mark  # with SQLite

    folder, sessions = here.state, here.config.session_root
    used = used_mark(os.environ, installed=here.installed)
    if used is not None and state_is_missing(folder, sessions):
        sentence = f"{folder} is empty, but {used} says that an agent used a state here before"
        advice = f"mount or put back the state folder; to begin with an empty one: rm {used}"
        yield wrong(sentence, advice)
    if not folder.is_dir():
        yield wrong(f"{folder} is not there", "start the agent once, or set [agent] state_path")
        return
    private = [folder, folder / "agent.db", here.config.api_socket, sessions]
    with suppress(OSError):  # closed to this user or missing: then it is not open to every user
        private += map(Path, os.scandir(sessions))
    if bad := [f"{path} ({mode:04o})" for path in private if (mode := _open_to_all(path))]:
        yield wrong(f"{len(bad)} are open to every user: {', '.join(bad[:5])}")
    else:
        yield ok(f"{folder} is closed to others")


def unit_files(_: Installation) -> Iterator[Finding]:
    """The view of systemd itself."""
    for row in show_units("Id,LoadState,LoadError", [it.replace("@.", "@x.") for it in UNITS]):
        unit, load = row["Id"].replace("@x.", "@."), row.get("LoadState", "")
        cure = f"systemctl unmask {unit}" if load == "masked" else ""
        bad = wrong(f"{unit}: {load} {row.get('LoadError', '')}".rstrip(), cure)
        yield ok(f"{unit} is loaded") if load == "loaded" else bad
    bad = wrong("the polkit rule is missing: the agent may not start its workers", check="polkit")
    yield ok("the rule is there", check="polkit") if any(map(Path.exists, RULES)) else bad


def show_units(properties: str, units: Iterable[str]) -> list[dict[str, str]]:
    """The properties of each unit, drop-ins included; empty where no systemd answers."""
    said = _run(["systemctl", "show", "--no-pager", "-p", properties, "--", *units])
    blocks = filter(None, said.strip().split("\n\n"))
    return [dict(it.split("=", 1) for it in one.splitlines() if "=" in it) for one in blocks]


def _run(argv: list[str]) -> str:
    """The output of a program; "" where it cannot run."""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False).stdout
    return ""


def kernel(_: Installation) -> Iterator[Finding]:
    """Limits of the units that this kernel does not enforce."""
    if not Path("/run/systemd/system").is_dir():
        return
    path = Path("/sys/fs/cgroup/cgroup.controllers")
    controllers = path.read_text(encoding="ascii").split() if path.exists() else []
    if "memory" not in controllers:
        sentence = "the kernel does not count a unit's memory: MemoryMax= does nothing"
        yield note(sentence, f"{_VERSION_2} and without cgroup_disable=memory", check="memory")
    words = "configures an IP firewall, but"  # systemd's, where it has no cgroup v2 or BPF
    command = ["journalctl", "-q", "-b", "-n", "1", "-o", "cat", "_PID=1", f"--grep={words}"]
    if not controllers or words in _run(command):
        sentence = "a worker can reach a cloud's metadata: IPAddressDeny= of the units does nothing"
        advice = f"deny 169.254.0.0/16 to wa-agent and wa-worker in nftables, or {_VERSION_2}"
        yield note(sentence, advice, check="firewall")


def unit_memory(here: Installation) -> Iterator[Finding]:
    """Sessions that the kernel ends before the memory is used that their settings grant."""
    try:
        report = here.client.get("/api/memory/report")["instances"]
    except errors.WaError:
        return  # the check `agent` reports it
    limits = {units.INSTANCES.unit(id): row["memoryLimit"] for id, row in report.items()}
    for row in show_units("Id,MemoryMax", limits) if limits else ():
        unit, most = row.get("Id", ""), row.get("MemoryMax", "")
        if most.isdigit() and (limit := limits.get(unit) or 0) > int(most):
            yield wrong(
                f"its session may use {limit} bytes of memory, but the kernel ends it at the"
                f" MemoryMax= of {unit}, {most}",
                f"create /etc/systemd/system/{unit}.d/memory.conf with the lines [Service] and"
                f" MemoryMax={int(limit * BEHIND)}; then systemctl daemon-reload",
            )


def agent(here: Installation) -> Iterator[Finding]:
    """The running agent's answers about itself."""
    if not here.config.api.is_loopback:
        words = f"keys come to {here.config.api.listen} without TLS"
        yield note(words, "put nginx or Caddy before 127.0.0.1: nginx.conf.example", check="port")
    try:
        health = here.client.get("/api/health")
    except errors.WaError as error:
        advice = "systemctl restart wa-agent: sessions stay connected; then journalctl -u wa-agent"
        bad = wrong(str(error), advice)
        yield note(bad.sentence, "sudo wa-agent doctor") if CLOSED in bad.sentence else bad
        return
    if (itself := health["agent"])["version"] != VERSION:
        words = f"version {itself['version']} runs, {VERSION} is installed"
        yield note(words, "systemctl restart wa-agent; sessions stay connected")
    elif health["status"] != "ok":
        words = " ".join(["it runs:", health["status"].replace("_", " "), *health["in_trouble"]])
        yield note(words, "these need a person; all that is wrong: wa-agent list --trouble")
    else:
        total = counted(health["instances"]["total"], "instance")
        yield ok(f"version {VERSION} runs, {total}; other troubles: wa-agent list --trouble")
    if (its_state := itself.get("places", {}).get("state", str(here.state))) != str(here.state):
        words = f"that agent runs on {its_state}; these findings are about {here.state}"
        yield note(words, "run doctor on its machine, or name --state")
    for cause in itself.get("not_listening", {}).values():
        yield wrong(cause, "the agent tries again by itself; sessions run meanwhile", check="port")
    if itself["dbus_connected"] is False:
        yield wrong("the agent lost D-Bus", "systemctl status dbus", check="dbus")


def database(here: Installation) -> Iterator[Finding]:
    try:
        found = str(here.client.request("POST", "/api/database/check")["found"])
        troubles = here.client.get("/api/troubles")["troubles"]
    except errors.WaError:
        yield note("not checked: the agent, which checks it, refuses or is away", "see: agent")
    else:
        yield ok("whole") if found == "ok" else wrong(found)
        lost = (it for it in troubles if it["kind"] == "database_lost")
        yield from (note(it["sentence"], it["advice"]) for it in lost)


def _environment(here: Installation) -> Mapping[str, str]:
    """A unit's worker has its unit's environment, not the doctor's."""
    if not here.installed:
        return os.environ
    (row,) = show_units("Environment", [units.INSTANCES.unit("x")]) or [{}]
    return dict(word.split("=", 1) for word in shlex.split(row.get("Environment", "")))


def _settings_of(here: Installation, engine: str) -> Iterator[Mapping[str, Any]]:
    """The settings of each instance of that engine that is declared or has a folder."""
    yield from (row.settings for row in here.config.instance if row.engine == engine)
    with suppress(OSError, errors.WaError):
        kept = [it.identity.instance for it in scan(here.config.session_root) if it.identity]
        yield from (instance.settings for instance in kept if instance.engine == engine)


def browser(here: Installation) -> Iterator[Finding]:
    """Without a web instance it is checked once a browser or the bundle is installed."""
    kinds = {str(it.get("browser", SHELL)) for it in _settings_of(here, "web")} & set(BINARIES)
    problems = web.examine(here.config.cache_root, _environment(here), kinds or {SHELL})
    if not kinds and {"browser_missing", "bundle_missing"} <= {it.code for it in problems}:
        yield ok("no web instance and no part of the web engine: not checked")
        return
    for problem in problems:
        yield (wrong if problem.serious and kinds else note)(problem.sentence, problem.cure)
    if not problems:
        yield ok("the web engine can run")


def node(here: Installation) -> Iterator[Finding]:
    """Without a baileys instance it is checked once all its parts are installed."""
    problems = baileys.examine(here.config.cache_root, _environment(here), installed=here.installed)
    if problems and any(True for _ in _settings_of(here, "baileys")):
        yield from (wrong(problem.sentence, problem.cure) for problem in problems)
    else:
        lacks = "no baileys instance, and parts of its engine are missing: not checked"
        yield ok(lacks if problems else "the baileys engine can run")


def backends(here: Installation) -> Iterator[Finding]:
    declared, views = here.config.backend, None
    holders = [row.name for row in declared if hide_secrets(row) != row]
    if here.file is not None and holders and _open_to_all(here.file):
        sentence = f"{here.file} holds keys ({', '.join(holders)}) and is open to every user"
        advice = f"chmod o-rwx {here.file}, or use key_file and password_file"
        yield wrong(sentence, advice, check="config")
    if declared:
        with suppress(errors.WaError):  # the check `agent` says why
            views = {view["name"]: view for view in here.client.get("/api/backends")["backends"]}
    for row in declared:
        server = [] if views is None else [_server(row, views.get(row.name))]
        for finding in (*server, *_secrets_and_redis(row)):
            yield replace(finding, check=f"backend {row.name}")


ETCD = Path("/etc/default/etcd")


def fleet_store(here: Installation) -> Iterator[Finding]:
    """A fleet that this machine joined, and that its agent does not ask."""
    store, key = fleet_of(here.config).store, here.state / "fleet/machine.pem"
    own = ETCD.read_text(encoding="utf-8") if store and ETCD.exists() else ""
    if not store and key.exists():
        yield wrong(f"[fleet] store names no member of etcd, but {key} is there")
    elif "wa-agent-etcd" in own and not any(str(urlsplit(it).hostname) in own for it in store):
        yield wrong(f"[fleet] store names no member of this machine's own etcd: {ETCD}")


def _open_to_all(path: Path) -> int:
    """The mode of a file that every user may open, else 0."""
    with suppress(OSError):  # reading it reports the error
        mode = path.stat().st_mode & 0o7777
        return mode if mode & 0o007 else 0
    return 0


def _server(backend: BackendDeclaration, view: Mapping[str, Any] | None) -> Finding:
    if view is None:
        return note("the running agent has not read it", "systemctl restart wa-agent: it reads it")
    if not view["up"]:
        advice = f"does it run? right url, key, ca_file? wa-agent backends check {backend.name}"
        return wrong(view["sentence"] or "it is not up", advice)
    if view.get("warning"):
        advice = "correct its logs, log_session, auth_folder or rights: agent/backends/README.md"
        return wrong(f"it answers, but {view['warning']}", advice)
    total = "? sessions" if view["sessions"] is None else counted(view["sessions"], "session")
    words = f"{backend.engine} {view['version']}".strip()
    words = f"{words} answers in {view['answer_seconds']:.2f} s; {total}"
    return ok(f"{words}, {view['connected']} of our {view['held']} connected")


def _secrets_and_redis(backend: BackendDeclaration) -> Iterator[Finding]:
    settings = backend.flat()
    for path in filter(None, (settings.get("key_file"), settings.get("password_file"))):
        if _open_to_all(Path(path)):
            yield wrong(f"{path} is open to every user", f"chmod o-rwx {path}")
    if not (url := settings.get("redis_url")):
        return
    from agent.backends.whaticket.keys import RedisKeys  # with the library for HTTP

    parts = urlsplit(url)
    where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    try:
        with RedisKeys(url, timeout=5.0, ca_file=backend.ca_file).talk("ask it"):
            pass
    except errors.WaError as error:
        yield wrong(f"Redis at {where}: {error}", "does it run? redis_url needs its password, too")
    else:
        yield ok(f"Redis at {where} answers")
