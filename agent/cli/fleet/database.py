"""`fleet database prepare | check`: tables, the role of the agents, and the powers of a login."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.command import Subparsers, add_command, add_config_options, add_group
from agent.cli.fleet.owner import as_owner_of
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import pair_lines
from agent.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from agent.config import Config
    from agent.fleet.postgres.examine import DatabaseFacts

_OWNER = "WA_FLEET_OWNER"


def add(among: Subparsers) -> None:
    of_database = add_group(among, "database", "the database that the fleet shares", "check")
    summary = "make or upgrade the fleet's tables and the role of its agents, as their owner"
    parser = add_command(of_database, "prepare", prepare, summary, "--address-file owner.txt")
    parser.add_argument(
        "--address-file",
        metavar="FILE",
        help="file with the owner's postgresql://USER:PASSWORD@HOST/NAME; - = standard input;"
        f" default: the variable {_OWNER}",
    )
    parser.add_argument(
        "--role", metavar="NAME", help="an existing login that may speak for machines from now on"
    )
    parser.add_argument(
        "--ttl", type=float, metavar="SECONDS", help="set another [fleet] ttl, while no agent runs"
    )
    summary = "look at the database with the login of this machine's agent"
    add_config_options(add_command(of_database, "check", check, summary), listen=argparse.SUPPRESS)


def prepare(options: argparse.Namespace) -> int:
    address = _owners_address(options.address_file)
    import asyncio

    from agent.fleet.postgres import schema

    async def work() -> tuple[int, int]:
        versions = await schema.prepare(address)
        if options.role:
            await schema.allow(address, options.role)
        if options.ttl is not None:
            await schema.set_ttl(address, options.ttl)
        return versions

    before, after = asyncio.run(work())
    done = f"the fleet's tables are of version {after}"
    was = (
        "" if before == after else " now; there were none" if not before else f" now, were {before}"
    )
    follow = (
        f"the login {options.role} may speak for machines"
        if options.role
        else "make a login for the agents, and let it speak for machines:\n"
        "  CREATE ROLE wa_agent LOGIN PASSWORD '...';\n"
        "  GRANT wa_agent_machine TO wa_agent;"
    )
    shown = {"before": before, "version": after, "role": options.role}
    return print_answer(options, shown, done + was, follow)


def _owners_address(file: str | None) -> str:
    """Never from the command line, which every user of the machine can read."""
    if file == "-":
        text = sys.stdin.readline()
    elif file:
        try:
            text = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidRequest(f"cannot read {file}: {cause}", field="address_file") from None
    else:
        text = os.environ.get(_OWNER, "")
    if not text.strip():
        raise InvalidRequest(
            f"cannot prepare the database without its owner's address: set {_OWNER}, or use"
            " --address-file FILE (- = standard input)",
            field="address_file",
        )
    return text.strip()


def agents_address(config: "Config") -> str:
    """As the agent uses it, with the password of its file."""
    from agent.fleet.postgres.address import usable_address

    return usable_address(config.fleet.database, password=config.fleet.password())


def check(options: argparse.Namespace) -> int:
    import asyncio

    from agent.cli.agent import overrides_of
    from agent.config import load_config
    from agent.fleet.postgres.examine import examine

    path = config_path(options.config, os.environ)
    config = load_config(path, os.environ, overrides=overrides_of(options))
    if not config.fleet.database:
        raise ConfigError(
            "cannot check the fleet's database: [fleet] database is not set; wa-agent fleet join",
            field="fleet.database",
            code="no_fleet",
        )
    with as_owner_of(config.agent.state_path):
        facts = asyncio.run(examine(agents_address(config)))
    good = not facts.powers and not facts.warning
    shown = {name: getattr(facts, name) for name in ("version", "role", "powers", "warning")}
    shown |= {"machines": facts.names, "key_fingerprint": facts.fingerprint}
    return print_answer(options, shown, *database_lines(facts), good=good)


def database_lines(facts: "DatabaseFacts") -> list[str]:
    powers = "; ".join(facts.powers)
    return pair_lines(
        {
            "tables": f"version {facts.version}",
            "connection": facts.warning or "protected",
            "login": f"{facts.role}: {powers or 'may do what an agent needs, and nothing else'}",
            "machines": ", ".join(facts.names) or "none yet",
            "key": facts.fingerprint or "none yet",
        }
    )
