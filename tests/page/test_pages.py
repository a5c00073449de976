"""The pages: what foreign text can do in them, which is nothing."""

import asyncio
import gzip
import shutil
from pathlib import Path

from agent.core.model import ConnectionStatus, InstanceId
from agent.page.pages import PARTS
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import make_view
from tests.lacking import lacks

FOUL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


async def test_f83_a_page_may_run_nothing_but_our_own_files(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        for path in ("/", "/docs", "/page/dashboard.js"):
            answer = await local.get(path)
            policy = dict(
                part.strip().split(" ", 1)
                for part in answer.headers["Content-Security-Policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_page_travels_packed_and_is_not_sent_again_while_it_is_the_same(
    house: House,
) -> None:
    async with house.local(base_url="http://localhost", auto_decompress=False) as local:
        sent = plain = 0
        for path in ("/", "/docs", *(f"/page/{name}" for name in PARTS)):
            packed = await local.get(path, headers={"Accept-Encoding": "gzip"})
            assert packed.headers["Content-Encoding"] == "gzip", path
            body = await packed.read()
            whole = await local.get(path, headers={"Accept-Encoding": "identity"})
            assert gzip.decompress(body) == await whole.read(), path
            again = await local.get(path, headers={"If-None-Match": packed.headers["ETag"]})
            assert (again.status, await again.read()) == (304, b""), path
            assert "default-src 'none'" in again.headers["Content-Security-Policy"]
            other = await local.get(path, headers={"If-None-Match": '"other"'})
            assert other.status == 200
            sent += len(body)
            plain += int(whole.headers["Content-Length"])
    assert sent < plain / 2


async def test_f83_a_browser_shows_foreign_text_and_obeys_none(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        lacks("this machine has no Chromium")
    async with open_house(trust_loopback=True) as house:
        id = InstanceId("sales")
        house.supervisor.known[id] = make_view(
            id, status=ConnectionStatus.QR_REQUIRED, sentence=FOUL
        )
        process = await asyncio.create_subprocess_exec(
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"),
            *(f"--user-data-dir={tmp_path}", "--no-first-run", "--dump-dom", house.url + "/"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60):
                shown = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
    assert 'data-id="sales"' in shown, "the page was drawn"
    assert "&lt;img src=x onerror=" in shown
    assert "<title>wa-agent</title>" in shown
    assert "<img src=" not in shown
