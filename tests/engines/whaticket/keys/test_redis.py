"""Keys in a real Redis: only what is corrupted goes, after it was backed up."""

import json
import signal
import stat

import pytest

from agent.engines.whaticket.keys.redis import KeyDump, RedisKeys, parse_keys, render_keys
from agent.engines.whaticket.keys.resp import Conversation
from agent.errors import EngineError
from tests.standin.whaticket.keys import RedisKeys as TheirKeys

PEER, LID = "5511999990001", "123456789012345"
REMOVED = [
    f"identity-key-{LID}_1.0",
    f"sender-key-120363000000000001@g.us::{LID}_1::0",
    f"sender-key-120363000000000001@g.us::{PEER}::0",
    f"session-{LID}_1.0",
    f"session-{PEER}.0",
    f"session-{PEER}.12",
]


async def everything(client) -> dict[bytes, tuple[bytes, int]]:
    return {key: (await client.dump(key), await client.pttl(key)) for key in await client.keys("*")}


@pytest.fixture
def redis_bench(open_bench, redis_server, redis_client, eventually):
    async def make(**settings):
        bench = await open_bench(
            keys=TheirKeys(redis_client),
            auth_folder="",
            redis_url=redis_server.full_url,
            **settings,
        )
        theirs = await bench.paired("7")
        await bench.open()
        session = bench.hold("shop", "7")
        await eventually(lambda: theirs.status, "CONNECTED")
        return bench, theirs, session

    return make


async def test_a_round_removes_one_peers_keys_and_nothing_else(
    redis_bench, redis_client, eventually
):
    bench, theirs, session = await redis_bench()
    await bench.stand_in.keys.write("77", f"session-{PEER}.0", "another session's")
    await bench.stand_in.keys.write("7x", f"session-{PEER}.0", "another session's")
    await redis_client.hset("bull:queue", "a", "b")
    await redis_client.set("cache", "x", px=1_000_000)
    await theirs.damage(PEER)
    before = await everything(redis_client)

    await session.regenerate_keys([PEER])

    assert theirs.status == "CONNECTED"
    after = await everything(redis_client)
    gone = sorted(key.decode() for key in set(before) - set(after))
    assert gone == sorted(f"sessions:7:{name}" for name in REMOVED)
    assert {key: after[key][0] for key in after} == {key: before[key][0] for key in after}
    assert theirs.receive(PEER)

    [folder] = (bench.kept / "removed" / "7").iterdir()
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["state"], manifest["keys"]) == ("done", len(REMOVED))
    await session.command("restore_removed", {"name": folder.name})
    assert theirs.status == "CONNECTED"
    assert not theirs.receive(PEER)
    again = await everything(redis_client)
    assert {key: value[0] for key, value in again.items()} == {k: v[0] for k, v in before.items()}


async def test_a_renewal_takes_all_keys_of_the_session(redis_bench, redis_client):
    bench, theirs, session = await redis_bench()
    await bench.stand_in.keys.write("77", "creds", "another session's")
    before = await everything(redis_client)
    await session.renew(confirmed=True)
    assert theirs.status == "qrcode"
    assert list(await everything(redis_client)) == [b"sessions:77:creds"]
    [folder] = (bench.kept / "removed" / "7").iterdir()
    kept = parse_keys((folder / "keys.json").read_bytes())
    assert len(kept) == len(before) - 1
    assert (await session.probe()).claim.paired is False


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        ("-del", "regenerate"),
    ],
)
async def test_a_user_without_the_rights_for_a_change_takes_no_session_down(
    redis_bench, redis_client, rights, words
):
    bench, theirs, session = await redis_bench()
    await theirs.damage(PEER)
    await session.probe()
    before, asked = await everything(redis_client), len(bench.stand_in.requests)
    changes = {
        "regenerate": lambda: session.regenerate_keys([PEER]),
        "start over": lambda: session.renew(confirmed=True),
    }
    await redis_client.execute_command("ACL", "SETUSER", "default", rights)
    with pytest.raises(EngineError, match="does not allow this user"):
        await changes[words]()
    await redis_client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert theirs.status == "CONNECTED"
    after = await everything(redis_client)
    assert {key: value[0] for key, value in after.items()} == {k: v[0] for k, v in before.items()}
    new = [line for line in bench.stand_in.requests[asked:] if "GET" not in line]
    assert new == [], "it was never taken down"


# --- the keys by themselves ------------------------------------------------------------------


@pytest.fixture
async def keys(redis_server, redis_client):
    opened = RedisKeys(redis_server.full_url, "sessions:{id}:*", 20.0)
    yield opened
    await opened.close()


@pytest.mark.parametrize("id", ["*", "[0-9]", "7\\"])
async def test_signs_of_a_pattern_in_an_id_mean_themselves(keys, redis_client, id):
    await redis_client.set(f"sessions:{id}:creds", "mine")
    await redis_client.set("sessions:5:creds", "another's")
    await redis_client.set("sessions:77:creds", "another's")
    assert await keys.names(id) == [f"sessions:{id}:creds"]


async def test_every_type_is_backed_up_and_comes_back(keys, redis_client):
    await redis_client.set("sessions:7:a", b"\x00\xff text")
    await redis_client.set("sessions:7:b", "soon gone", px=500_000)
    await redis_client.hset("sessions:7:c", mapping={"x": "1", "y": "2"})
    await redis_client.sadd("sessions:7:d", "1", "2", "3")
    await redis_client.zadd("sessions:7:e", {"one": 1, "two": 2})
    await redis_client.rpush("sessions:7:f", *range(200))
    await redis_client.set(b"sessions:7:\xff\xfe", "a name that is no text")
    before = await everything(redis_client)
    kept = await keys.read(await keys.names("7"))
    assert len(kept) == 7
    kept = parse_keys(render_keys(kept))
    await keys.delete(kept)
    assert await redis_client.keys("*") == []
    await keys.restore(kept)
    after = await everything(redis_client)
    assert {key: value[0] for key, value in after.items()} == {k: v[0] for k, v in before.items()}
    assert 0 < after[b"sessions:7:b"][1] <= 500_000
    with pytest.raises(EngineError, match="exist again"):
        await keys.restore(kept)


async def test_a_key_that_changed_since_its_backup_is_not_deleted(keys, redis_client):
    for number in range(250):
        await redis_client.set(f"sessions:7:{number:03}", number)
    kept = await keys.read(await keys.names("7"))
    await redis_client.set("sessions:7:249", "new")
    with pytest.raises(EngineError, match="changed meanwhile"):
        await keys.delete(kept)
    assert await redis_client.get("sessions:7:249") == b"new"


async def test_a_key_written_between_look_and_delete_is_not_deleted(
    keys, redis_client, monkeypatch
):
    await redis_client.set("sessions:7:a", 1)
    kept = await keys.read(["sessions:7:a"])
    ask = Conversation.ask

    async def meddling(self, *commands):
        if commands[0][0] == "MULTI":
            await redis_client.set("sessions:7:a", 2)
        return await ask(self, *commands)

    monkeypatch.setattr(Conversation, "ask", meddling)
    with pytest.raises(EngineError, match="changed meanwhile"):
        await keys.delete(kept)
    assert await redis_client.get("sessions:7:a") == b"2"


async def test_the_creds_tell_whether_it_is_paired(keys, redis_client):
    assert await keys.look("7") == "absent"
    for text, found in (
        ('{"me":{"id":"5511:1@s.whatsapp.net"}}', "paired"),
        ('{"noise":1}', "unpaired"),
        ('{"me":{"id":"55', "damaged"),
        ("[]", "damaged"),
    ):
        await redis_client.set("sessions:7:creds", text)
        assert await keys.look("7") == found


# --- trouble ---------------------------------------------------------------------------------


async def test_a_redis_that_is_gone_stops_the_round_before_it_begins(redis_bench, redis_server):
    _, theirs, session = await redis_bench()
    redis_server.process.kill()
    redis_server.process.wait()
    theirs._life.cancel()
    with pytest.raises(EngineError, match="no connection to Redis") as caught:
        await session.regenerate_keys([PEER])
    assert caught.value.code == "redis"
    assert theirs.status == "CONNECTED"


async def test_a_redis_that_hangs_is_waited_for_no_longer_than_said(redis_server, redis_client):
    keys = RedisKeys(redis_server.full_url, "sessions:{id}:*", 1.0)
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(EngineError, match="no answer from Redis within 1 s"):
            await keys.names("7")
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    await keys.close()


@pytest.mark.parametrize("redis_server", ["hush-hush"], indirect=True)
async def test_a_password_that_is_missing_or_wrong_is_said_and_not_shown(
    redis_server, redis_client
):
    for url in (
        redis_server.full_url.replace(":hush-hush@", ""),
        redis_server.full_url.replace("hush-hush", "wrong-one"),
    ):
        keys = RedisKeys(url, "sessions:{id}:*", 20.0)
        with pytest.raises(EngineError, match="refuses the password, or asks for one") as caught:
            await keys.names("7")
        assert "wrong-one" not in str(caught.value)
        await keys.close()


@pytest.mark.parametrize(
    "raw",
    [b"[", b'[{"key":"eA==","dump":"eA==","sha256":"x"}]'],
)
def test_a_backup_that_is_damaged_is_not_believed(raw):
    with pytest.raises(ValueError, match=r".*"):
        parse_keys(raw)


def test_values_are_in_no_repr():
    kept = KeyDump("sessions:7:creds", "string", -1, b"secret value")
    assert parse_keys(render_keys([kept])) == [kept]
    assert "secret" not in repr(kept)
