"""The rights of an agent's login, tried as a thief of it would."""

import uuid

import psycopg
import pytest
from psycopg.rows import TupleRow

from agent.errors import ConfigError, Refused, WaError
from agent.fleet.coordinator import Held, Member, NewSession
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.examine import CALLED, examine
from tests.fleet.test_postgres import TTL, Fleet, fleet, machine, server, two_machines

__all__ = ["fleet", "server"]

FUNCTIONS = set(CALLED)


async def ask(address: str, statement: str) -> list[TupleRow]:
    async with await psycopg.AsyncConnection.connect(address) as connection:
        found = await connection.execute(statement.encode())
        return await found.fetchall() if found.description else []


async def state(fleet: Fleet) -> list[list[TupleRow]]:
    """Everything that the fleet's tables hold."""
    async with await psycopg.AsyncConnection.connect(fleet.server.url) as connection:
        listed = await connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'wa_agent'::regnamespace"
            " AND relkind = 'r' ORDER BY 1"
        )
        tables = await listed.fetchall()
        assert len(tables) == 10
        found = []
        for (name,) in tables:
            rows = await connection.execute(f"SELECT it::text FROM wa_agent.{name} it".encode())
            found.append(await rows.fetchall())
        return found


async def test_an_agents_login_writes_no_table_and_calls_only_the_functions_of_an_agent(
    fleet: Fleet,
):
    writable = await ask(
        fleet.address,
        "SELECT relname, word FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE',"
        " 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS word"
        " WHERE relnamespace = 'wa_agent'::regnamespace AND relkind IN ('r', 'v')"
        " AND (has_table_privilege(oid, word) OR word IN ('INSERT', 'UPDATE', 'REFERENCES')"
        " AND has_any_column_privilege(oid, word))"
        " UNION SELECT sequencename, 'SEQUENCE' FROM pg_sequences WHERE schemaname = 'wa_agent' AND"
        " has_sequence_privilege('wa_agent.' || sequencename, 'USAGE, SELECT, UPDATE')"
        " UNION SELECT 'wa_agent', 'CREATE' WHERE has_schema_privilege('wa_agent', 'CREATE')",
    )
    assert writable == []
    functions = await ask(
        fleet.address,
        "SELECT proname, prosecdef, proconfig, has_function_privilege(oid, 'EXECUTE')"
        " FROM pg_proc WHERE pronamespace = 'wa_agent'::regnamespace",
    )
    assert {name for name, _, _, allowed in functions if allowed} == FUNCTIONS
    for name, definer, settings, _ in functions:
        assert definer, name
        assert settings == ["search_path=pg_catalog, pg_temp"], name


OUTSIDE = (
    "UPDATE wa_agent.session SET machine = 1",
    "UPDATE wa_agent.machine SET epoch = 0",
    "DELETE FROM wa_agent.copy",
    "DELETE FROM wa_agent.copy_change",
    "TRUNCATE wa_agent.machine",
    "CREATE TABLE wa_agent.mine (x int)",
    "DROP FUNCTION wa_agent.take_over",
    "COPY wa_agent.session TO PROGRAM 'id'",
    "SELECT wa_agent.changed('{1}')",
    "SELECT installation FROM wa_agent.machine",
    "SELECT * FROM wa_agent.machine",
    "SELECT nextval('wa_agent.machine_id_seq')",
    "SELECT setval('wa_agent.command_number_seq', 1)",
    "SELECT * FROM wa_agent.session FOR UPDATE",
    "LOCK TABLE wa_agent.session IN ACCESS EXCLUSIVE MODE",
    "ALTER TABLE wa_agent.session DISABLE TRIGGER ALL",
    "CREATE TRIGGER mine BEFORE UPDATE ON wa_agent.session EXECUTE FUNCTION wa_agent.renew()",
    "CREATE RULE mine AS ON INSERT TO wa_agent.command DO INSTEAD NOTHING",
    "SET ROLE owner",
    "SET SESSION AUTHORIZATION owner",
    "CREATE OR REPLACE FUNCTION wa_agent.renew() RETURNS void LANGUAGE sql AS ''",
    "ALTER FUNCTION wa_agent.accept_loss() RESET search_path",
    "SELECT wa_agent.speaks_for(1, 0)",
    "SELECT wa_agent.lock_owners()",
    "SELECT wa_agent.remove_session('shop', 1)",
    "SELECT wa_agent.insert_session(1, '{}', 1)",
    "SELECT wa_agent.newest_known('shop')",
    "SELECT pg_read_file('/etc/passwd')",
    "ALTER DATABASE whatsapp SET search_path = public",
)


async def test_statements_outside_of_an_agents_rights_are_refused(fleet: Fleet):
    await two_machines(fleet)
    before = await state(fleet)
    for statement in OUTSIDE:
        try:
            await ask(fleet.address, statement)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType):
            assert await state(fleet) == before, statement
        else:
            pytest.fail(f"not refused: {statement}")


async def test_doctor_names_rights_that_lack_and_settings_that_lose_what_was_confirmed(
    fleet: Fleet,
):
    facts = await examine(fleet.address)
    assert facts.refused == []
    assert not any("synchronous_commit" in it or "max_connections" in it for it in facts.weak)
    fleet.server.sql(
        "REVOKE EXECUTE ON FUNCTION wa_agent.take_over FROM wa_agent_machine;"
        "ALTER ROLE agent SET synchronous_commit = off"
    )
    coordinator = fleet.coordinator()
    for number in range(30):
        await coordinator.join(machine(f"m{number}"))
    try:
        facts = await examine(fleet.address)
    finally:
        fleet.server.sql("ALTER ROLE agent RESET synchronous_commit")
    assert facts.refused == ["take_over"]
    assert "synchronous_commit is off: a crash of the server loses the last changes" in facts.weak
    (crowded,) = [it for it in facts.weak if "max_connections" in it]
    assert crowded.endswith("the machines of this fleet hold 120")


async def test_other_logins_may_read_and_call_nothing(fleet: Fleet):
    await two_machines(fleet)
    fleet.server.sql(
        "DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    stranger = fleet.server.url.replace("owner@", "stranger@")
    for statement in ("TABLE wa_agent.copy", "SELECT wa_agent.accept_loss()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await ask(stranger, statement)


async def test_the_functions_ignore_objects_that_a_login_made_for_itself(fleet: Fleet):
    """Objects of a session come first in its search path; the functions have one of their own."""
    _, a, second, b = await two_machines(fleet)
    traps = [
        f"CREATE TEMP TABLE {name} (LIKE wa_agent.session)"
        for name in ("fleet", "session", "command", "copy", "view", "due", "mine", "taken")
    ]
    caught = "CREATE FUNCTION pg_temp.{} LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$"
    traps += [
        caught.format("now() RETURNS timestamptz"),
        caught.format("clock_timestamp() RETURNS timestamptz"),
        caught.format("pg_notify(a text, b text) RETURNS void"),
        caught.format("array_agg(a integer) RETURNS integer[]"),
        caught.format("same(a text, b text) RETURNS boolean"),
        "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.same)",
        "SET search_path = pg_temp, wa_agent, public, pg_catalog",
    ]
    calls = [
        f"SELECT wa_agent.renew({b.id}, {b.epoch}, {b.renewals}, '{{}}', 0, 6, '')",
        f"SELECT wa_agent.renew({b.id}, {b.epoch}, {b.renewals}, '{{}}', 0, 6, '', 0, 9, '')",
        f"SELECT wa_agent.tell_sessions({b.id}, {b.epoch}, '[]', '{{\"gone\": 1}}')",
        f"SELECT wa_agent.publish({b.id}, {b.epoch}, '{{\"shop\": {{}}}}')",
        f"SELECT wa_agent.add_command('{uuid.uuid4()}', 'shop', 'start', '{{}}', 'k', 'ann')",
        f"SELECT wa_agent.take_commands({b.id}, {b.epoch}, 9)",
        f"SELECT wa_agent.hand_over({b.id}, {b.epoch}, {b.renewals + 2}, 'shop', {a.id}, 'x')",
    ]
    async with await psycopg.AsyncConnection.connect(fleet.address, autocommit=True) as connection:
        for statement in (*traps, *calls):
            await connection.execute(statement.encode())
    found = await second.session("shop")
    assert found is not None
    assert (found.machine, found.epoch) == (a.id, 1), "the fleet's own table was changed"


async def test_a_login_speaks_for_its_own_machine_only(fleet: Fleet):
    """Each machine may have one of its own: who takes one does not own the others' sessions."""
    _, a, second, b = await two_machines(fleet)
    fleet.server.sql(
        "DO $$ BEGIN CREATE ROLE agent2 LOGIN IN ROLE wa_agent_machine;"
        " EXCEPTION WHEN duplicate_object THEN END $$"
    )
    other = PostgresCoordinator(fleet.address.replace("agent@", "agent2@"), TTL, 20.0)
    fleet.opened.append(other)
    c = await other.join(machine("c"))
    kept = await second.add_command(
        str(uuid.uuid4()), "shop", "start", {}, idempotency_key="", asked_by="ann"
    )
    (taken,) = await second.take_commands(b, 1)
    waiting = await second.add_command(
        str(uuid.uuid4()), "shop", "stop", {}, idempotency_key="", asked_by="ann"
    )
    assert taken.id == kept.id
    before = await state(fleet)
    for member in (a, b):
        await _tries(other, member, c, kept.id)
    # Its own machine is no key to what another one owns either.
    await _tries_on_its_own(other, c, waiting.id)
    assert await state(fleet) == before
    with pytest.raises(ConfigError, match="another machine"):
        await other.join(machine("b", installation=str(uuid.uuid4())))


THEIRS = Held(NewSession("shop", "sandbox"), 9, 10**9)
"""A session of another machine, as one tells it that has it."""


async def _tries(other: PostgresCoordinator, member: Member, own: Member, command: str) -> None:
    with pytest.raises(Refused) as refused:
        await other.renew(member, frozenset(), 10**9)
    assert refused.value.code == "not_a_member"
    assert not await other.leave(member, ["shop"])
    assert not await other.take_over(member, 2, 0, member.renewals, {"shop": own.id})
    assert not await other.hand_over(member, "shop", own.id, "mine")
    assert not await other.store_copy(member, "shop", 0, b"another session")
    assert await other.store_change(member, "shop", 0, b"a change", number=9, after=0) is False
    assert not await other.store_baggage(member, "shop", 0, 1, pieces={"x": b""}, kept=["x"])
    assert not await other.update(member, "shop", 0, wanted="stopped")
    assert not await other.delete(member, "shop", 0)
    await other.copies_lack(member, {"shop": 9})
    assert not await other.accept_copy(member, "shop", member.id, member.renewals)
    await other.publish(member, {"shop": {"state": "wrong"}})
    await other.set_capacity(member, 0)
    assert not await other.forget(member, 1, 0)
    assert not await other.take_commands(member, 10)
    assert not await other.end_command(member, command, "done", {})
    for refusing in (
        other.create(member, NewSession("bar", "sandbox"), member.id),
        other.register(member, [NewSession("bar", "sandbox")]),
        other.tell(member, [THEIRS], {"shop": 10**9}),
    ):
        with pytest.raises(WaError):
            await refusing


async def _tries_on_its_own(other: PostgresCoordinator, own: Member, command: str) -> None:
    assert not await other.take_over(own, 2, 0, 1, {"shop": own.id}), "not a rival of it"
    assert not await other.hand_over(own, "shop", own.id, "mine")
    assert not await other.store_copy(own, "shop", 0, b"another session")
    assert not await other.update(own, "shop", 0, wanted="stopped")
    assert not await other.delete(own, "shop", 0)
    assert await other.register(own, [NewSession("shop", "sandbox")]) == ["shop"]
    assert not await other.create(own, NewSession("shop", "sandbox"), own.id)
    assert not await other.tell(own, [THEIRS], {"shop": 10**9}), "no record is lost"
    await other.publish(own, {"shop": {"state": "wrong"}})
    assert not await other.take_commands(own, 10)
    assert not await other.end_command(own, command, "done", {})
