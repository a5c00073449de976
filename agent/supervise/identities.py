"""What the file beside a session says of it, from what the agent knows."""

from dataclasses import replace

from agent.core.reasons import reason_of
from agent.supervise.facts import Facts
from agent.vault.identity import Identity


def identity_of(facts: Facts) -> Identity:
    record = facts.record
    return Identity(
        facts.instance,
        record.paired,
        record.account,
        ended=ended_of(facts),
        override=record.override,
        override_boot=record.override_boot,
        generation=record.generation,
        needs_passkey=record.needs_passkey,
        of_wings=facts.of_wings,
    )


def says_the_same(written: Identity | None, wanted: Identity) -> bool:
    if written is None:
        return False
    return replace(written, lineage="", generation=wanted.generation) == wanted


def ended_of(facts: Facts) -> str:
    """The reason of a final end, with which its worker must not log in; "" on a backend."""
    code = "" if facts.instance.backend else facts.record.reason
    return code if code and reason_of(code).final else ""
