"""What on this machine keeps the baileys engine from working, and its cure. Changes nothing."""

from collections.abc import Mapping
from pathlib import Path

from agent.engines.baileys.node import (
    HIDDEN,
    fetch_command,
    find_node,
    find_npm,
    find_packages,
    offline_way,
)
from agent.engines.settings import Finding
from agent.errors import ConfigError


def examine(
    cache: Path, env: Mapping[str, str] | None = None, *, installed: bool = False
) -> list[Finding]:
    """Every finding; an empty list when the engine can run. `installed`: in its unit."""
    findings: list[Finding] = []
    try:
        find_node(env, HIDDEN if installed else ())
    except ConfigError as error:
        sentence, _, cure = str(error).rpartition("; ")
        findings.append(Finding(error.code, sentence, cure))
    try:
        find_packages(cache)
    except ConfigError as error:
        sentence = str(error).partition(": ")[0]
        cure = f"fetch them: {fetch_command(cache)}. {offline_way(cache)}"
        findings.append(Finding(error.code, sentence, cure))
        if not find_npm():
            cure = "`scripts/install --with baileys` brings it, or Debian's package npm"
            findings.append(
                Finding("npm_missing", "npm, which fetches the packages, is missing", cure)
            )
    return findings
