"""agent.toml and the environment, read once into frozen values. An unknown key, a wrong type or an
impossible pair is a ConfigError that names key, file and line."""

from agent.config.addresses import split_address
from agent.config.backends import BackendSecrets, secrets_of, with_secrets
from agent.config.config import Config, Declaration
from agent.config.declaration import BackendDeclaration
from agent.config.load import load_config, unused_variables
from agent.config.problem import Problem
from agent.config.render import render_config, tables_of, without_secrets
from agent.config.rules import changes_that_need_restart
from agent.config.sections import (
    INSTALLED_SOCKET,
    INSTALLED_STATE,
    AgentSection,
    ApiSection,
    BackendsSection,
    SessionsSection,
    StopSection,
    WorkerSection,
)

__all__ = [
    "INSTALLED_SOCKET", "INSTALLED_STATE", "AgentSection", "ApiSection", "BackendDeclaration",
    "BackendSecrets", "BackendsSection", "Config", "Declaration", "Problem", "SessionsSection",
    "StopSection", "WorkerSection", "changes_that_need_restart", "load_config", "render_config",
    "secrets_of", "split_address", "tables_of", "unused_variables", "with_secrets",
    "without_secrets",
]  # fmt: skip
