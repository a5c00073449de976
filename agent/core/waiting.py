"""Why an instance waits for something other than itself, and whether that explains its state."""

from agent.core.model import ConnectionStatus, Health, HealthVerdict, Observation
from agent.core.observed import waits_for_network
from agent.core.reasons import NETWORK_CODES, UNREACHABLE, Permanence, Reason
from agent.core.verdicts import conclude

Status = ConnectionStatus

BACKEND_DOWN = "backend_down"
BACKEND_UNCHECKED = "backend_unchecked"
WAITS_TURN = "waits_turn"
AWAY = frozenset({BACKEND_DOWN, BACKEND_UNCHECKED, "backend_missing"})
"""Wait reasons that leave the session's own state unknown."""
GONE = AWAY - {BACKEND_UNCHECKED}
"""Of them, those that may last for any time."""

WAIT_SENTENCES = {
    BACKEND_DOWN: "its backend is down",
    BACKEND_UNCHECKED: "the agent has not checked its backend yet",
    WAITS_TURN: "its turn to start has not come",
    "backend_circuit": "its backend left several checks or requests in a row without an answer;"
    " one session tries first",
    "backend_missing": "agent.toml declares no [[backend]] of the name in its settings",
    UNREACHABLE: "this machine cannot reach the address that the session needs",
    "network_down": "many sessions lost their connection at once; one of them tries first",
    "incident": "many instances of its engine fail the same way; one of them tries first",
    "memory_full": "the machine has too little memory for one more worker",
    "disk_full": "the disk of the sessions has too little free space",
}
"""Wait reasons; a wait costs the instance no attempt."""

NOT_SOON = (Permanence.AT_TIME, Permanence.PROBE_SLOWLY)
"""Reasons with a time of their own for the next try, however far."""

_NETWORK_VERDICTS = frozenset(
    {"proof_old", "not_proved", "state_stuck"}
    | {f"phase_{phase}" for phase in ("loaded", "injected", "login", "sync")}
)
"""What a worker reports of a network that is away, beside the reasons of the table."""

_AT_REST = (Status.CONNECTED, Status.DISCONNECTED, Status.QR_REQUIRED)


def waits_for_others(observation: Observation, ended: Reason, now: float) -> bool:
    """Whether it waits; one whose own time has not come waits for no network."""
    own_time = ended.permanence in NOT_SOON and now < observation.not_before
    return bool(observation.wait_reason) and not (
        own_time and observation.wait_reason in ("network_down", UNREACHABLE)
    )


def is_the_networks(observation: Observation, verdict: HealthVerdict) -> bool:
    """Whether an address that is away explains this verdict."""
    if verdict.reason == "starting":
        return waits_for_network(observation)
    if verdict.health not in (Health.STUCK, Health.DEGRADED) or verdict.state in _AT_REST:
        return False
    return verdict.reason in NETWORK_CODES or verdict.reason in _NETWORK_VERDICTS


def waiting(observation: Observation) -> HealthVerdict:
    known = observation.wait_sentence or WAIT_SENTENCES.get(
        observation.wait_reason, observation.wait_reason
    )
    sentence = f"waiting: {known}"
    state = Status.RECONNECTING
    return conclude(observation, Health.DISCONNECTED, state, observation.wait_reason, sentence)


def wait_fields(reason: str, sentence: str = "") -> dict[str, str]:
    """How the API says why a session waits."""
    sentence = sentence or WAIT_SENTENCES.get(reason, reason)
    return {"wait_reason": reason, "wait_sentence": sentence}
