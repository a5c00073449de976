"""The settings of an instance with the program engine. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.setting import setting
from agent.core.words import parse_instance_id
from agent.engines.settings import read_table
from agent.errors import InvalidRequest


def _name_fault(name: str) -> str:
    try:
        parse_instance_id(name)
    except InvalidRequest:
        return "it must be the name of a [[program]] in agent.toml"
    return ""


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    program: str = setting("", "the [[program]] of agent.toml that runs as it", check=_name_fault)


def read_settings(raw: Mapping[str, Any]) -> ProgramSettings:
    """ConfigError names the setting that cannot be used."""
    return read_table(ProgramSettings, raw, "program setting")


def needed_address(_settings: ProgramSettings, _folder: Path) -> None:
    """Where a program of somebody's own connects to is not known."""
