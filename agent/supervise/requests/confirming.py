"""Orders that end a pairing: without a person's word they are refused, and say what to type."""

from agent.core.observed import no_pairing_to_lose
from agent.core.recovery.pairing import CONFIRM_PASSKEY, WOULD_UNPAIR, may_person_end_it
from agent.core.recovery.repair import Consent, Kept
from agent.errors import Refused
from agent.supervise.facts import Facts


def has_pairing(facts: Facts) -> bool:
    return not no_pairing_to_lose(facts)


def must_be_unpaired(facts: Facts) -> None:
    """Before another login begins, for a new pairing."""
    if has_pairing(facts):
        raise Refused(
            f"cannot get a pairing code for {facts.id}: it has a pairing, or may have one; the"
            f" pairing is kept. To end it and get a new code: `wa-agent cleanup {facts.id} --yes`",
            code="not_waiting",
        )


def must_be_paired(facts: Facts, doing: str) -> None:
    """Refuse an order that only ends a pairing, where there is certainly none."""
    if not has_pairing(facts):
        raise Refused(
            f"cannot {doing} {facts.id}: it is not paired, there is no pairing to end; to pair it:"
            f" `wa-agent qr {facts.id}`",
            code="not_paired",
        )


def must_be_confirmed(facts: Facts, doing: str, *, confirmed: bool, passkey: str) -> Consent:
    """The caller's word. `confirmed`: that a pairing may end; `passkey`: the id, where it
    may be lost for good."""
    id = facts.id
    if not confirmed and has_pairing(facts):
        there, chats = facts.instance, ""
        if doing == "clean up" and there.engine == "evolution":
            chats = f" and delete {there.remote} on {there.backend} with its chats, to make it anew"
        raise Refused(
            f"cannot {doing} {id} without a confirmation: it would end a pairing{chats}; confirm"
            ' with --yes (in a request: "confirm": true)',
            field="confirm",
            code=WOULD_UNPAIR,
        )
    consent = Consent.PAIRING if confirmed else Consent.NONE
    if passkey == id:
        consent = Consent.PASSKEY
    if isinstance(may_person_end_it(facts, consent), Kept):
        raise Refused(
            f"cannot {doing} {id}: its account needs a passkey to link again, so its pairing can be"
            f" lost for good; confirm with --confirm-passkey {id} (in a request:"
            f' {CONFIRM_PASSKEY} = "{id}")',
            field=CONFIRM_PASSKEY,
            code=CONFIRM_PASSKEY,
        )
    return consent
