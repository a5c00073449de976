"""doctor on backends: how their servers are, and what the agent needs on this machine."""

import asyncio
import shutil
import socket

import pytest

from tests.cli.doctor.test_doctor import doctor, state
from tests.lacking import lacks

__all__ = ["doctor", "state"]

EVO = "[[backend]]\nname = 'evo'\nengine = 'evolution'\nurl = 'http://e.example'\nkey = 'K-1'\n"
TICKET = "[[backend]]\nname = 'tick'\nengine = 'whaticket'\nurl = 'http://t.example'\nkey = 'K-2'\n"


@pytest.fixture
def examine(doctor, tmp_path):
    """Run it on a configuration; (level, sentence, advice) of each finding about backends."""

    async def told(text: str, mode: int = 0o600):
        file = tmp_path / "agent.toml"
        file.write_text(text)
        file.chmod(mode)
        _, found = await doctor("--config", str(file))
        return [
            (one["level"], one["sentence"], one["advice"])
            for check in found
            if check.startswith("backend") or check == "config"
            for one in found[check]
        ]

    return told


def wrong(found):
    return [(sentence, advice) for level, sentence, advice in found if level == "wrong"]


async def test_a_backend_that_answers_is_good(examine, house):
    house.supervisor.backends.declare("evo", held=4, connected=3)
    found = await examine(EVO)
    assert wrong(found) == []
    assert any(
        "evolution 2.3.7 answers in 0.02 s; 2 sessions, 3 of our 4 connected" in sentence
        for _, sentence, _ in found
    )


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"reason": "refused_key", "sentence": "it does not accept the key"}, "does not accept"),
        ({"reason": "new_word", "sentence": ""}, "it is not up"),
    ],
)
async def test_a_fault_of_a_server_comes_with_advice(examine, house, more, sentence):
    house.supervisor.backends.declare("evo", up=False, **more)
    (found,) = wrong(await examine(EVO))
    assert sentence in found[0]
    assert "backends check evo" in found[1]


async def test_keys_must_not_be_open_to_everybody(examine, house, tmp_path):
    house.supervisor.backends.declare("evo")
    ((sentence, advice),) = wrong(await examine(EVO, 0o644))
    assert "agent.toml holds keys (evo)" in sentence
    assert "chmod o-rwx" in advice
    key = tmp_path / "key"
    key.write_text("K-1\n")
    key.chmod(0o644)
    text = EVO.replace("key = 'K-1'", f"key_file = '{key}'")
    ((sentence, _),) = wrong(await examine(text, 0o644))
    assert sentence == f"{key} is open to every user"


# Redis


@pytest.fixture
async def redis(tmp_path, eventually):
    """A real server that wants a password; its path."""
    program = shutil.which("redis-server")
    if program is None:
        lacks("redis-server is not installed")
    path = tmp_path / "redis.sock"
    process = await asyncio.create_subprocess_exec(
        program,
        *("--port", "0", "--unixsocket", str(path), "--requirepass", "R-1", "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
    )

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    try:
        await eventually(listens)
        yield path
    finally:
        process.terminate()
        await process.wait()


async def test_redis_is_asked_with_the_password(examine, house, redis):
    house.supervisor.backends.declare("tick", "whaticket")

    async def told(url: str) -> list[tuple[str, str]]:
        found = await examine(f"{TICKET}redis_url = '{url}'\n")
        return [(level, said) for level, said, _ in found if said.startswith("Redis")]

    assert await told(f"unix://:R-1@{redis}") == [("ok", f"Redis at {redis} answers")]
    ((level, said),) = await told(f"unix://:R-2@{redis}")
    assert (level, "R-2" in said, "Redis answers WRONGPASS" in said) == ("wrong", False, True)
    ((level, said),) = await told(f"unix:///{redis}.gone")
    assert (level, "no connection to Redis" in said) == ("wrong", True)
