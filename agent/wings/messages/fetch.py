"""The file of a message, written on the machine of the command: whole or not at all."""

import argparse
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import client_of
from agent.cli.copies.transfer import check_target, whole_file
from agent.cli.terminal.answer import print_answer
from agent.errors import InvalidRequest, WaError

if TYPE_CHECKING:
    from http.client import HTTPResponse

_WAIT = 60
_SECONDS = 150.0
"""Of silence: the agent may load the file first."""
_PIECE = 1 << 18
LONGEST = 900.0
"""Seconds that a load may take."""


def fetch(options: argparse.Namespace) -> int:
    if not options.out:
        raise InvalidRequest("cannot write the file: --out names none", field="out")
    target = Path(options.out)
    check_target(target, force=options.force)
    query = {"wait": _WAIT, **({"chat": options.chat} if options.chat else {})}
    path = f"/api/instance/{options.id}/messages/{quote(options.media, safe='')}/media"
    client, until = client_of(options), time.monotonic() + LONGEST
    while True:
        try:
            size, digest, mimetype = _fetch(client, f"{path}?{urlencode(query)}", target)
        except AgentSaidNo as error:
            if error.code != "media_loading" or time.monotonic() > until:
                raise
        else:
            break
    shown = {"file": str(target), "bytes": size, "sha256": digest, "mimetype": mimetype}
    return print_answer(options, shown, f"{target}: {size} bytes, {mimetype}, sha256 {digest}")


def _fetch(client: Client, path: str, target: Path) -> tuple[int, str, str]:
    with client.exchange("GET", path, None, {"Accept": "*/*"}, _SECONDS) as response:
        return _write(response, target)


def _write(response: "HTTPResponse", target: Path) -> tuple[int, str, str]:
    size, digest, received = response.length, hashlib.sha256(), 0
    with whole_file(target) as file:
        while piece := response.read(_PIECE):
            file.write(piece)
            digest.update(piece)
            received += len(piece)
        if received != size or digest.hexdigest() != response.headers.get("X-Media-SHA256"):
            raise WaError(f"cannot write {target}: the file did not arrive whole; try again")
    return received, digest.hexdigest(), response.headers.get("Content-Type", "")
