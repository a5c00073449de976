"""The doctor's checks, in their order, each with the cure of what it finds."""

from collections.abc import Iterator
from dataclasses import replace

from agent.cli.doctor import backends, engines, installation
from agent.cli.doctor.check import Finding, Installation, Level
from agent.moving import program_commands
from agent.webhooks import commands as webhooks

CHECKS = (
    ("clock", installation.clock, "run timedatectl set-ntp true, or install chrony"),
    ("disk", installation.disk, "remove unneeded files; wa-agent trash list: retired sessions"),
    ("state", installation.state, "chmod o-rwx, and find out which program gave the right"),
    ("socket", installation.api_socket, "chmod 660: a client of it needs no key"),
    ("kernel", installation.kernel, ""),
    ("agent", installation.agent, "journalctl -u wa-agent says more"),
    ("database", installation.database, "systemctl restart wa-agent: it rebuilds the database"),
    ("browser", engines.browser, ""),
    ("baileys", engines.node, ""),
    ("packs", engines.packs, "`wa-agent restart ID` moves a session"),
    ("backend", backends.backends, ""),
    ("program", program_commands.examine, ""),
    ("webhook", webhooks.examine, ""),
)
AGAIN = "run scripts/install again"
OF_AN_INSTALLATION = (
    ("units", installation.unit_files, AGAIN),
    ("polkit", installation.polkit, AGAIN),
    ("users", installation.users, AGAIN),
    ("memory limits", installation.unit_memory, ""),
)


def examine(here: Installation) -> Iterator[Finding]:
    """A check only looks, and one that cannot look says so and hides no other."""
    for name, check, cure in (*CHECKS, *(OF_AN_INSTALLATION if here.installed else ())):
        for finding in check(here):
            advice = finding.advice or ("" if finding.level is Level.OK else cure)
            yield replace(finding, check=finding.check or name, advice=advice)
