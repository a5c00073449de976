"""Helpers that the store's tests share."""

import signal

import pytest

from agent.core.model import Instance, InstanceId, JournalEntry
from agent.store.database import Store
from tests.in_memory import folder_in_memory
from tests.vault.conftest import in_python


def instance(id="sales", **changes):
    return Instance(InstanceId(id), **{"engine": "sandbox", "enabled": True, **changes})


def entry(kind="status", id=None, **changes):
    return JournalEntry(
        kind, **{"sentence": "it changed", "instance": id and InstanceId(id), **changes}
    )


@pytest.fixture
def path():
    with folder_in_memory() as folder:
        yield folder / "state" / "agent.db"


@pytest.fixture
async def open_store(path):
    """Open stores that are closed with the test."""
    opened = []

    async def open(at=path, **options):
        store = await Store.open(at, **options)
        opened.append(store)
        return store

    yield open
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store):
    return await open_store()


@pytest.fixture
def run_child():
    """Run code in another Python; return what it printed. With a failpoint it must be killed."""

    def run(code: str, *arguments: object, failpoint: str = "") -> list[str]:
        done = in_python(code, *arguments, failpoint=failpoint)
        wanted = -signal.SIGKILL if failpoint else 0
        assert done.returncode == wanted, (done.returncode, done.stderr)
        return done.stdout.splitlines()

    return run
