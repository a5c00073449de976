"""An account that needs a passkey to link: the second question before its pairing is ended."""

from agent.core.observed import may_be_paired
from agent.errors import Refused
from agent.supervise.facts import Facts

CODE = "confirm_passkey"
"""The refusal's code, and the field that answers it."""


def must_confirm_passkey(facts: Facts, doing: str, confirmation: str) -> None:
    """`confirmation`: the id, where the caller confirms that the pairing may be lost."""
    record, id = facts.record, facts.id
    paired = may_be_paired(record, facts.run.claim, facts.folder.files)
    if record.needs_passkey and paired and confirmation != id:
        raise Refused(
            f"cannot {doing} {id}: its account needs a passkey to link again, so its pairing can be"
            f' lost for good; confirm with --confirm-passkey {id} (in a request: {CODE} = "{id}")',
            field=CODE,
            code=CODE,
        )
