"""One stand-in for WhatsApp for all tests of a process, which begins again for each: its start
costs as much as a test, for it reads megabytes of messages' forms."""

import pytest

from tests.standin.baileys.run import WhatsApp

WHATSAPP = pytest.StashKey[WhatsApp]()


def shared_whatsapp(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WhatsApp:
    stash = request.config.stash
    if WHATSAPP not in stash:
        stash[WHATSAPP] = WhatsApp(tmp_path_factory.mktemp("whatsapp") / "log")
        request.session.addfinalizer(stash[WHATSAPP].end)
    stash[WHATSAPP].begin_anew()
    return stash[WHATSAPP]
