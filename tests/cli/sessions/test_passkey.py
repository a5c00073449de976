"""The command notes that an account needs a passkey, and the id confirms the end of its pairing."""

from dataclasses import replace

import pytest

from agent.core.model import InstanceId
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.fakes.supervisor import make_view
from tests.sessions import changed

SALES = InstanceId("sales")
ENDS = (("logout", "--yes"), ("cleanup", "--yes"), ("delete",))


@pytest.fixture
def marked(house: House) -> House:
    view = make_view("sales")
    house.supervisor.known[SALES] = changed(view, record=replace(view.record, needs_passkey=True))
    return house


@pytest.mark.parametrize(("verb", "options"), [(one[0], one[1:]) for one in ENDS])
async def test_the_id_must_be_given_once_more(
    cli: Cli, marked: House, verb: str, options: tuple[str, ...]
) -> None:
    assert (await cli(verb, "sales", *options)).status == 4
    assert (await cli(verb, "sales", *options, "--confirm-passkey", "shop")).status == 4
    assert SALES in marked.supervisor.known
    assert marked.supervisor.repairs.asked == []
    assert (await cli(verb, "sales", *options, "--confirm-passkey", "sales")).status == 0


async def test_an_operator_notes_it_and_takes_it_back(cli: Cli, house: House) -> None:
    house.supervisor.known[SALES] = make_view("sales")
    assert (await cli("passkey", "sales", "needed")).status == 0
    assert "passkey" in (await cli("show", "sales")).out
    assert "passkey" in (await cli("why", "sales")).out
    assert (await cli("passkey", "sales", "not-needed")).status == 0
    assert "passkey" not in (await cli("show", "sales")).out
