"""Gives archives to the agent, also to one that is started again meanwhile."""

import argparse
import hashlib
import os
import time
from contextlib import suppress
from typing import IO, Any
from urllib.parse import urlencode

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import client_of, wants_json
from agent.cli.copies.transfer import upload
from agent.cli.terminal import of_bytes, with_progress
from agent.errors import AgentUnreachable

_PATIENCE = 120.0
"""Seconds that an agent may be away which answered this command before."""
_EVERY = 0.5


class Sending:
    def __init__(self, options: argparse.Namespace) -> None:
        """AgentUnreachable where no agent answers."""
        self._options = options
        self._client = client_of(options)
        self._client.open_socket().close()
        self._gone = False
        """The agent did not come back in time: no further archive waits for it."""

    def send(self, archive: IO[bytes], id: str | None, name: str) -> dict[str, Any]:
        """The new instance. One that was made, and whose answer was lost, is not made again."""
        was_there = find_instance(self._client, id) is not None
        while True:
            archive.seek(0)
            try:
                return self._upload(archive, id, name)
            except AgentUnreachable:
                if self._gone or not self._is_back():
                    raise
            if not was_there and (made := find_instance(self._client, id)):
                archive.seek(0)
                sha256 = hashlib.file_digest(archive, "sha256").hexdigest()  # type: ignore[arg-type]
                return {**made, "sha256": sha256, "trash": ""}

    def _upload(self, archive: IO[bytes], id: str | None, name: str) -> dict[str, Any]:
        options = self._options
        wanted = {"replace": options.replace, "enable": options.enable}
        query = {name: "true" for name, given in wanted.items() if given}
        if id:
            query["id"] = id
        path = "/api/import" + ("?" + urlencode(query) if query else "")
        size, sent = os.fstat(archive.fileno()).st_size, [0]

        def count(more: int) -> None:
            sent[0] += more

        instance: dict[str, Any] = with_progress(
            f"importing {name}",
            lambda: upload(self._client, path, archive, size, count),
            lambda: of_bytes(sent[0], size),
            quiet=wants_json(options),
        )
        return instance

    def _is_back(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with suppress(AgentUnreachable):
                self._client.open_socket().close()
                return True
            time.sleep(_EVERY)
        self._gone = True
        return False


def find_instance(client: Client, id: str | None) -> dict[str, Any] | None:
    try:
        return client.get(f"/api/instance/{id}") if id else None
    except AgentSaidNo as error:
        if error.code != "not_found":
            raise
        return None
