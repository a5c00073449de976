"""Small texts by name that outlive the agent; no decision about a session depends on them."""

from collections.abc import Collection, Mapping

from sqlite_utils import Database


def read_fact(db: Database, name: str) -> str | None:
    row = db.execute("select value from facts where name = ?", [name]).fetchone()
    return None if row is None else row[0]


def read_facts(db: Database, prefix: str) -> dict[str, str]:
    """All facts whose name begins so."""
    rows = db.execute(
        "select name, value from facts where substr(name, 1, ?) = ?", [len(prefix), prefix]
    )
    return dict(rows.fetchall())


def write_facts(db: Database, facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        db.execute(
            "insert into facts (name, value) values (?, ?)"
            " on conflict (name) do update set value = excluded.value",
            [name, value],
        )


def forget_facts(db: Database, names: Collection[str]) -> None:
    for name in names:
        db.execute("delete from facts where name = ?", [name])
