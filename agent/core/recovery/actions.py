"""The actions of which each step of a repair is made, as for all plans."""

from collections.abc import Mapping

from agent.core.plan import ActionKind, Plan
from agent.core.recovery.repair import Decision, RecoveryKind

_ACTIONS: Mapping[RecoveryKind, tuple[ActionKind, ...]] = {
    RecoveryKind.RECONNECT: (ActionKind.DISCONNECT, ActionKind.CONNECT),
    RecoveryKind.RESTART: (ActionKind.RESTART,),
    RecoveryKind.REGENERATE_KEYS: (ActionKind.REGENERATE_KEYS,),
    RecoveryKind.BACK_UP: (ActionKind.BACK_UP,),
    RecoveryKind.RESTORE: (ActionKind.STOP, ActionKind.RESTORE, ActionKind.START),
    RecoveryKind.CLEANUP: (ActionKind.STOP, ActionKind.SET_ASIDE, ActionKind.START),
}
_ACTIONS_REMOTE = {
    **_ACTIONS,
    RecoveryKind.LOGOUT_RESTART: (ActionKind.LOGOUT, ActionKind.RESTART, ActionKind.SET_ASIDE),
    RecoveryKind.CLEANUP: (ActionKind.RENEW, ActionKind.SET_ASIDE),
}
"""On a backend: its server has the files; once the server gave the pairing up, so does the
agent."""


def plan_step(decision: Decision, *, remote: bool) -> Plan:
    actions = (_ACTIONS_REMOTE if remote else _ACTIONS)[decision.kind]
    name, reason = decision.kind.value, decision.reason
    return Plan(name, actions, reason, proof=decision.proof, repair=True)


def plan_needs_scan(decision: Decision) -> Plan:
    """No try brought a suspect back: its files are evidence, it may pair again."""
    actions = (ActionKind.STOP, ActionKind.SET_ASIDE)
    return Plan("needs_scan", actions, decision.reason, proof=decision.proof, repair=True)
