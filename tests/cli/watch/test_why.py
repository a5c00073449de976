"""What `why` says of a repair that waits, and of a pairing that it keeps."""

from datetime import UTC, datetime
from typing import Any

from agent.cli.watch.why import next_steps, present_state

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def details(**changes: Any) -> dict[str, Any]:
    repair = {"step": "none", "round": 1, "tries": 0, "stage": "due", "ending": ""}
    made: dict[str, Any] = {
        "id": "shop",
        "should_run": True,
        "connection_status": "INITIALIZING",
        "since": None,
        "health": {"verdict": "stuck"},
        "sentence": "no code for 40 s",
        "guess": "",
        "snapshot_failure": "",
        "needs_passkey": False,
        "unit": {"state": "active", "result": "success"},
        "proof_age_seconds": None,
        "probe": None,
        "crypto_errors_lately": 0,
        "reason": "",
        "wait_reason": "",
        "backend": None,
        "wait_sentence": "",
        "turns_before": None,
        "repair": {**repair, "not_before": None, "started": None},
        "pairing_kept": "",
        "circuit": "closed",
        "next_attempt": None,
        "attempts": 0,
    }
    return {**made, **changes}


def test_a_repair_that_waits_for_others_has_no_next_step_now() -> None:
    said = list(
        next_steps(details(wait_reason="incident", wait_sentence="one of them tries first"), NOW)
    )
    assert any(line.startswith("it waits for others") for line in said)
    assert not [line for line in said if "the next step now" in line], said


def test_an_open_circuit_of_its_backend_is_told_with_what_to_type() -> None:
    held = {"wait_reason": "backend_circuit", "wait_sentence": "one session tries first"}
    said = next(next_steps(details(**held, backend="evo"), NOW))
    assert said.startswith("it waits for others: one session tries first")
    assert said.endswith("or now: wa-agent backends reset evo")


def test_a_kept_pairing_is_told_with_what_to_type() -> None:
    kept = "it may have a pairing, so nothing is tried that could end it. Type this"
    assert f"no step ends its pairing: {kept}" in list(next_steps(details(pairing_kept=kept), NOW))


def test_a_guess_is_called_one_and_stands_beside_the_sentence() -> None:
    said = list(present_state(details(guess="WhatsApp may be away"), NOW))
    assert said.index("a guess: WhatsApp may be away") == said.index("no code for 40 s") + 1
