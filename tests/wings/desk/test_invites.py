"""Invitations: for one instance, for a time, for one upload, and never kept in clear."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import Forbidden, NotFound, Refused, Unauthorized
from agent.supervise.copies.invitations import Candidate, NoInvitations
from agent.vault.archives.seal import Sealed
from agent.wings.desk.invites import Invites

ID = InstanceId("sales")
SECONDS = 60.0


class Bed:
    def __init__(self, tmp_path):
        self.facts, self.journal, self.now = {}, [], 1000.0
        self.known = {ID: Candidate(Instance(ID, "web", False, created_wall=5.0), paired=False)}
        self.invites = Invites(
            self,
            tmp_path / "pairing.key",
            find=self.find,
            seconds=lambda: SECONDS,
            wall=lambda: self.now,
        )

    def find(self, id):
        if id not in self.known:
            raise NotFound("cannot find it")
        return self.known[id]

    async def get_fact(self, name):
        return self.facts.get(name)

    async def put_fact(self, name, value):
        self.facts[name] = value

    async def forget_facts(self, names):
        for name in names:
            del self.facts[name]

    async def append(self, *entries):
        self.journal += entries
        return list(entries)

    async def invite(self):
        return (await self.invites.invite(ID, ""))[0]


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


async def test_neither_token_nor_door_is_kept(bed):
    made = await bed.invite()
    kept = json.dumps(bed.facts) + repr(bed.journal)
    assert made.token not in kept and made.door not in kept
    assert [entry.kind for entry in bed.journal] == ["invited"]


async def test_an_invite_ends_with_its_time(bed):
    made = await bed.invite()
    bed.now += SECONDS
    await bed.invites.check_door(ID, made.door)
    bed.now += 1
    with pytest.raises(Forbidden) as caught:
        await bed.invites.check_door(ID, made.door)
    assert caught.value.code == "invite_expired"
    with pytest.raises(Forbidden):
        await bed.invites.check_sealed(ID, Sealed(ID, made.token))


async def test_the_check_of_a_door_asks_the_store_once_and_sees_each_change(bed):
    """Uploads at the door keep no place for requests while a slow disk answers."""
    first, asked = await bed.invite(), []

    async def get_fact(name):
        asked.append(name)
        return bed.facts.get(name)

    bed.invites, bed.get_fact = replace(bed.invites, _known={}), get_fact  # another start
    for _ in range(3):
        await bed.invites.check_door(ID, first.door)
    assert len(asked) == 1
    second = await bed.invite()
    await bed.invites.check_door(ID, second.door)
    with pytest.raises(Unauthorized):
        await bed.invites.check_door(ID, first.door)
    await bed.invites.use(ID, "0" * 64)
    with pytest.raises(Forbidden):
        await bed.invites.check_door(ID, second.door)
    third = await bed.invite()
    assert await bed.invites.revoke(ID)
    with pytest.raises(Unauthorized):
        await bed.invites.check_door(ID, third.door)


async def test_the_user_of_an_invite_may_ask_for_a_while_and_send_nothing(bed):
    made = await bed.invite()
    bed.now += SECONDS
    await bed.invites.use(ID, "0" * 64)
    bed.now += SECONDS
    await bed.invites.check_door(ID, made.door, used=True)
    with pytest.raises(Forbidden) as caught:
        await bed.invites.check_door(ID, made.door)
    assert caught.value.code == "invite_used"
    bed.now += 1
    with pytest.raises(Forbidden):
        await bed.invites.check_door(ID, made.door, used=True)
    assert await bed.invites.revoke(ID) is False


async def test_the_door_alone_seals_nothing(bed):
    """Who reads the network along sees the door."""
    made = await bed.invite()
    for token in ("", made.door):
        with pytest.raises(Unauthorized):
            await bed.invites.check_sealed(ID, Sealed(ID, token))
    with pytest.raises(Refused):
        await bed.invites.check_sealed(ID, Sealed(InstanceId("other"), made.token))
    await bed.invites.check_sealed(ID, Sealed(ID, made.token))


async def test_another_instance_of_that_name_is_not_invited(bed):
    made = await bed.invite()
    later = replace(bed.known[ID].instance, created_wall=6.0)
    bed.known[ID] = Candidate(later, paired=False)
    with pytest.raises(Unauthorized):
        await bed.invites.check_door(ID, made.door)


async def test_a_new_one_voids_the_last_and_a_revoked_one_is_void(bed):
    first, second = await bed.invite(), await bed.invite()
    with pytest.raises(Unauthorized):
        await bed.invites.check_door(ID, first.door)
    await bed.invites.check_door(ID, second.door)
    assert await bed.invites.revoke(ID) is True
    with pytest.raises(Unauthorized):
        await bed.invites.check_door(ID, second.door)


def test_an_agent_without_invitations_carries_no_cipher():
    code = (
        "import sys, agent.api.app, agent.supervise.assemble;"
        "print({'nacl', 'agent.wings.desk.hand_over'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


async def test_without_the_desk_a_sealed_session_comes_into_no_instance(tmp_path):
    nobody = NoInvitations(tmp_path / "pairing.key")
    with pytest.raises(Refused, match="invites nobody"):
        await nobody.check_sealed(ID, Sealed(ID, "a token"))
    with pytest.raises(Refused, match="it exists"):
        nobody.refuse_unfit(ID, None)
