"""Two [[backend]] that are one server are told before both repair its sessions."""

import pytest

from agent.backends.declared import one_server
from agent.config.declaration import BackendDeclaration

HERE = "http://127.0.0.1:8080"


def _told(*places: tuple[str, tuple[str, ...]], engine: str = "evolution") -> list[str]:
    kinds = ("evolution", engine)
    declared = [
        BackendDeclaration(name=f"b{number}", engine=kind, url=url, adopt=adopt)
        for number, ((url, adopt), kind) in enumerate(zip(places, kinds, strict=True))
    ]
    return list(one_server(declared))


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        (HERE, "http://localhost:8080", True),
        ("http://evo.example", "http://evo.example:80/", True),
        (HERE, "http://127.0.0.2:8080", False),
        ("http://evo.example", "http://gone.example", False),
    ],
)
def test_two_names_of_one_server_are_told(first: str, second: str, one: bool) -> None:
    assert bool(_told((first, ("*",)), (second, ("*",)))) is one


def test_two_engines_share_no_server() -> None:
    assert _told((HERE, ("*",)), (HERE, ("*",)), engine="whaticket") == []


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (("*",), ("sales",), True),
        (("sales-*", "x"), ("x",), True),
        (("a*",), ("b*",), False),
        (("*",), (), False),
    ],
)
def test_only_an_adoption_of_the_same_sessions_is_told(
    one: tuple[str, ...], other: tuple[str, ...], overlap: bool
) -> None:
    assert bool(_told((HERE, one), (HERE, other))) is overlap
