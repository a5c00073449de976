"""/metrics over the wire: compressed for who asks for it, and answered to HEAD."""

import gzip

import pytest

from agent.core.model import InstanceId
from tests.api.conftest import House
from tests.fakes.supervisor import make_view


async def test_a_scrape_is_compressed_for_who_asks_for_it(house: House) -> None:
    for number in range(50):
        house.supervisor.known[InstanceId(f"i{number}")] = make_view(f"i{number}")
    async with house.local(auto_decompress=False) as raw:
        packed = await raw.get("http://localhost/metrics", headers={"Accept-Encoding": "gzip"})
        plain = await raw.get("http://localhost/metrics", headers={"Accept-Encoding": "identity"})
        small, whole = await packed.read(), await plain.read()
    assert [answer.headers.get("Content-Encoding") for answer in (packed, plain)] == ["gzip", None]
    assert b"wa_session_status{" in gzip.decompress(small)
    assert len(small) * 10 < len(whole)
    assert packed.headers["Content-Type"] == plain.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/api/instances"])
async def test_head_is_answered_without_a_body(local, path: str) -> None:
    answer = await local.head(path)
    assert (answer.status, await answer.read()) == (200, b"")
