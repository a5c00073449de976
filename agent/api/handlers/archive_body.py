"""The body of a request that is an archive of a session, in pieces."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from agent.api.http.body import TooSlow, UnsupportedType, invite
from agent.api.http.call import Call
from agent.errors import InvalidRequest

ARCHIVES = ("application/gzip", "application/octet-stream")
_SLOWEST = 16 * 1024
"""Bytes a second of a client that sends an archive, after the first `body_timeout`."""


def archive_of(call: Call) -> AsyncIterator[bytes]:
    """The body, where it says that it is an archive."""
    if call.request.content_type not in ARCHIVES:
        raise UnsupportedType(
            f"cannot read the archive: its Content-Type must be {ARCHIVES[0]}", field="body"
        )
    if call.request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedType("cannot read the archive: it has a Content-Encoding", field="body")
    return _pieces(call)


async def _pieces(call: Call) -> AsyncIterator[bytes]:
    """The body in pieces, each within `body_timeout`, and the whole at a rate of its own."""
    seconds = call.parts.section.body_timeout
    content = call.request.content
    await invite(call.request)
    last, received = asyncio.get_running_loop().time() + seconds, 0
    while True:
        left = last + received / _SLOWEST - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(seconds, left)):
                piece = await content.readany()
        except TimeoutError as error:
            cause = (
                f"the client sent nothing for {seconds:g} seconds"
                if left >= seconds
                else f"the client sends less than {_SLOWEST} bytes a second"
            )
            raise TooSlow(f"cannot read the archive: {cause}") from error
        except web.RequestPayloadError as error:
            raise InvalidRequest("cannot read the archive: it ended early", field="body") from error
        if not piece:
            return
        received += len(piece)
        yield piece
