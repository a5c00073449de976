"""The kernel tells of its routes: heard in a network of the test's own."""

import shutil
import socket
import subprocess
import sys

import pytest

from tests.lacking import lacks

PROGRAM = """
import asyncio, subprocess
from agent.host.machine.routes import Routes

async def main():
    changed = asyncio.Event()
    routes = Routes.open(changed.set)
    assert routes is not None
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    async with asyncio.timeout(60):
        await changed.wait()
    routes.close()
    print("heard")

asyncio.run(main())
"""


def test_a_change_of_the_machines_network_is_heard():
    if not (shutil.which("unshare") and shutil.which("ip")):
        lacks("unshare or ip is not installed")
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "unshare failed" in ended.stderr:
        lacks(ended.stderr.strip())
    assert ended.stdout == "heard\n", ended.stderr


@pytest.fixture(autouse=True)
def _linux():
    if not hasattr(socket, "AF_NETLINK"):
        lacks("no netlink here")
