"""Each act that may end a pairing: where it is in the program, and by which proof it happens.

An act that has no row here fails this test. A new one gets its proof from
agent/core/recovery/pairing.py: as a plan with a proof, or as an order that asks must_be_confirmed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.plan import ENDS_PAIRING, ActionKind, Plan
from agent.core.recovery.proof import Ground, Proof
from tests.backends import ends

AGENT = Path(__file__).parents[1] / "agent"

FUNCTIONS = {
    "retire": "agent.vault.trash",
    "restore_trash": "agent.vault.trash",
    "put_in_place": "agent.vault.copies.staging",
    "restore_snapshot": "agent.vault.copies.restore",
    "set_aside": "agent.supervise.passes.act",
    "delete_there": "agent.api.handlers.remote_session",
}
"""They move a whole session away, or put one in its place."""
METHODS = ("keeper.restore_newest", "asking.logout", "api.logout", "api.delete", "contract.logout")
METHODS += ("renewal.take_away", "renewal.log_out", "renewal.delete", "calls.logout")
METHODS += ("calls.delete", "api.renew")
WORDS = frozenset({"logout", "renew", "delete", "restore_removed", "pairing_code"})
"""What the agent asks a worker to do to a session."""
ASKS = ("call", "_call", "_command", "_ask")

PLAN = "a plan, which cannot be made without a proof"
ORDER = "an order of a person, which must_be_confirmed lets pass"
PART = "a part of an act that has a row of its own"
KEEPS = "the pairing stays: the same one takes its place, or its place was empty"
NAMED = "a person names what is put back; what it replaces is kept in removed-keys"
REPLACED = "a person's --replace, or no session of that name; the trash keeps the replaced one"
UNPAIRED = "refused for a session that may have a pairing"

ACTS = {
    # by the agent itself
    ("supervise/passes/act.py", "Executor._do", "_call kind"): PLAN,
    ("supervise/passes/act.py", "Executor._do", "keeper.restore_newest"): PLAN,
    ("supervise/passes/act.py", "Executor._set_aside", "set_aside"): PLAN,
    ("supervise/passes/act.py", "set_aside", "retire"): PART,
    ("supervise/copies/snapshots.py", "Snapshots._put_back", "restore_snapshot"): PART,
    ("vault/copies/restore.py", "restore_snapshot", "put_in_place"): PART,
    ("vault/copies/staging.py", "put_in_place", "retire"): PART,
    ("vault/copies/staging.py", "put_in_place", "restore_trash"): KEEPS,
    # ordered by a person
    ("supervise/requests/orders.py", "Orders.logout", "asking.logout"): ORDER,
    ("supervise/requests/calls.py", "Calls.logout", "call logout"): PART,
    ("supervise/requests/deletion.py", "Deletion._retire", "retire"): ORDER,
    ("supervise/requests/deletion.py", "Deletion.restore_trash", "restore_trash"): KEEPS,
    ("supervise/requests/deletion.py", "Deletion.restore_trash", "retire"): KEEPS,
    ("api/handlers/instances.py", "delete", "delete_there"): ORDER,
    ("api/handlers/remote_session.py", "delete_there", "_command delete"): PART,
    ("api/handlers/remote_session.py", "restore_removed", "_command restore_removed"): NAMED,
    ("api/handlers/web_session.py", "pairing_code", "_ask pairing_code"): UNPAIRED,
    ("wings/archives/archives.py", "Archives._put", "put_in_place"): REPLACED,
    # in a worker, asked by one of the above
    ("engines/baileys/engine.py", "BaileysEngine.logout", "call logout"): PART,
    ("engines/baileys/engine.py", "BaileysEngine.command", "call pairing_code"): UNPAIRED,
    ("engines/program/engine.py", "ProgramEngine.logout", "call logout"): PART,
    ("engines/evolution/observer.py", "Observer.pairing_code", "api.logout"): UNPAIRED,
    ("engines/evolution/renewal.py", "Renewal._remove", "api.logout"): PART,
    ("engines/evolution/renewal.py", "Renewal._remove", "api.delete"): PART,
    ("engines/evolution/renewal.py", "Renewal.log_out", "api.logout"): PART,
    ("engines/evolution/session.py", "EvolutionSession._log_out", "api.logout"): PART,
    ("engines/evolution/session.py", "EvolutionSession.renew", "renewal.log_out"): PART,
    ("engines/evolution/session.py", "EvolutionSession.renew", "renewal.take_away"): PART,
    ("engines/evolution/session.py", "EvolutionSession.command", "renewal.delete"): PART,
    ("engines/whaticket/session.py", "WhaticketSession.logout", "contract.logout"): PART,
}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    paths = sorted(AGENT.rglob("*.py"))
    return {str(path.relative_to(AGENT)): ast.parse(path.read_text()) for path in paths}


def acts(trees: dict[str, ast.AST]) -> Iterator[tuple[str, str, str]]:
    for file, tree in trees.items():
        ours = f"agent.{file.removesuffix('.py').replace('/', '.')}"
        known = {name for name, module in FUNCTIONS.items() if module == ours}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                known |= {a.name for a in node.names if FUNCTIONS.get(a.name) == node.module}
        for where, node in scoped(tree):
            if isinstance(node, ast.Name) and node.id in known:
                yield file, where, node.id
            if isinstance(node, ast.Attribute | ast.Call):
                yield from ((file, where, act) for act in asked(node))


def asked(node: ast.Attribute | ast.Call) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        ends = {name.rpartition(".")[2] for name in METHODS}
        text = ast.unparse(node).lstrip("_") if node.attr in ends else ""
        yield from (
            name for name in METHODS if text == name or text.endswith((f".{name}", f"_{name}"))
        )
        return
    asks = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
    words = [ast.unparse(word).strip("'") for word in node.args if asks in ASKS]
    yield from (f"{asks} {word}" for word in words if word in {*WORDS, "kind"})


def scoped(tree: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = f"{where}.{node.name}".lstrip(".") if named else where
        yield inner, node
        yield from scoped(node, inner)


def test_each_act_that_may_end_a_pairing_has_its_row_and_its_proof(
    trees: dict[str, ast.AST],
) -> None:
    assert set(acts(trees)) == ACTS.keys() | ends.PARTS


@pytest.mark.parametrize("kind", sorted(ENDS_PAIRING))
def test_a_plan_that_ends_a_pairing_cannot_be_made_without_a_proof(kind: ActionKind) -> None:
    with pytest.raises(AssertionError):
        Plan("any", (kind,), "why not")
    assert Plan("any", (kind,), "so", proof=Proof(Ground.PERSON)).proof


def test_proofs_are_made_in_one_file(trees: dict[str, ast.AST]) -> None:
    makers = {
        file
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Proof"
    }
    assert makers == {"core/recovery/pairing.py"}
