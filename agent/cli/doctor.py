"""`doctor`: checks of this installation, each finding with its cure."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from agent.cli.agent import overrides_of
from agent.cli.client import Client, config_path
from agent.cli.command import CONFIG, Commands, Options, Table
from agent.config.config import INSTALLED_STATE, Config
from agent.config.load import load_config
from agent.errors import ConfigError, WaError


@dataclass(frozen=True, slots=True)
class Finding:
    level: str
    """ok; note: it works, but look at it; wrong."""
    sentence: str
    advice: str = ""
    """"" with a note or a fault: the check's own cure."""
    check: str = ""
    """Name of the check; "" = the name of the one that is run."""


ok, note, wrong = partial(Finding, "ok"), partial(Finding, "note"), partial(Finding, "wrong")


@dataclass(frozen=True, slots=True)
class Installation:
    """The settings and the agent that the checks look at."""

    config: Config
    client: Client
    file: Path | None
    """The file of the settings; None: there is none."""

    @property
    def state(self) -> Path:
        return self.config.agent.state_path

    @property
    def installed(self) -> bool:
        """True where scripts/install or the package put the program."""
        return self.state == INSTALLED_STATE


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
        with suppress(WaError):  # that agent's settings; without an answer, these
            places = client.get("/api/health")["agent"]["places"]
            path = Path(places["config"]) if "config" in places else path
            overrides |= {key: places[name] for name, key in _PLACES.items() if name in places}
    config, findings = _config(path, overrides)
    if not (client.url or named):
        # The agent of these settings, not the first one that answers.
        client = Client(sockets=(config.api_socket,))
    findings += examine(Installation(config, client, path))
    advice = (f"{finding.check}: {finding.advice}" for finding in findings if finding.advice)
    good = all(finding.level != "wrong" for finding in findings)
    rows = [asdict(finding) for finding in findings]
    table = Table(rows, {"": "level", "CHECK": "check", "FINDING": "sentence"})
    return options.print({"findings": rows}, table, *advice, good=good)


def examine(here: Installation) -> Iterator[Finding]:
    """The checks in their order, each with the cure of what it finds. A check only looks, and one
    that cannot look says so and hides no other."""
    # The checks import most of the agent, which every other command starts without.
    from agent.cli import doctor_checks as checks
    from agent.moving import program_commands
    from agent.webhooks import commands as webhooks

    again = "run scripts/install again"
    for name, check, cure in (
        ("clock", checks.clock, "run timedatectl set-ntp true, or install chrony"),
        ("disk", checks.disk, "remove unneeded files; wa-agent trash list: retired sessions"),
        ("state", checks.state, "chmod o-rwx, and find out which program gave the right"),
        ("kernel", checks.kernel, ""),
        ("units", checks.unit_files, again),
        ("polkit", checks.polkit, again),
        ("memory limits", checks.unit_memory, ""),
        ("agent", checks.agent, "journalctl -u wa-agent says more"),
        ("database", checks.database, "systemctl restart wa-agent: it rebuilds the database"),
        ("browser", checks.browser, ""),
        ("baileys", checks.node, ""),
        ("backend", checks.backends, ""),
        ("program", program_commands.examine, ""),
        ("webhook", webhooks.examine, ""),
    ):
        if here.installed or name not in ("units", "polkit", "memory limits"):
            for finding in check(here):
                advice = finding.advice or ("" if finding.level == "ok" else cure)
                yield replace(finding, check=finding.check or name, advice=advice)


def _config(path: Path | None, overrides: Mapping[str, str]) -> tuple[Config, list[Finding]]:
    """The configuration; the defaults if the file is wrong, so that the other checks run."""
    try:
        config = load_config(path, os.environ, overrides=overrides)
    except ConfigError as error:
        return Config(), [wrong(str(error), "correct it: wa-agent config check", check="config")]
    advice = "unset it if it belongs to another program"
    return config, [
        ok(f"{path or 'the defaults'}: good", check="config"),
        *(note(sentence, advice, check="environment") for sentence in config.warnings),
    ]
