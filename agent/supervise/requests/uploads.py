"""Hand a long file to an engine in parts; the next is sent after the engine took the last. No part
touches a disk. A failure here comes before the message: it was surely not sent."""

import secrets
from collections.abc import Mapping
from typing import Any

from agent.core.model import InstanceId
from agent.errors import EngineError, LinkError, Refused, TryLater
from agent.supervise.worker_link import WorkerLink

PART = 256 * 1024
"""Characters of base64 in one part: whole groups of four, well below a frame of the link."""
PART_TIMEOUT = 15.0


async def in_parts(
    link: WorkerLink, id: InstanceId, message: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The message with the file's name in place of its content; a short one as it is."""
    content = message.get("content")
    if not isinstance(content, str) or len(content) <= PART:
        return message
    upload = secrets.token_hex(16)
    for index, start in enumerate(range(0, len(content), PART)):
        part = {"upload": upload, "index": index, "data": content[start : start + PART]}
        await _hand_over(link, id, part)
    size = len(content) // 4 * 3 - content[-2:].count("=")
    rest = {name: value for name, value in message.items() if name != "content"}
    return {**rest, "upload": upload, "size": size}


async def _hand_over(link: WorkerLink, id: InstanceId, part: Mapping[str, Any]) -> None:
    try:
        call = {"name": "file_part", "arguments": dict(part)}
        await link.call("command", call, timeout=PART_TIMEOUT)
    except LinkError as error:
        raise TryLater(f"cannot hand the file over to {id}: {error}", code="not_sent") from error
    except EngineError as error:
        if error.code == "invalid_request":
            raise Refused(
                f"cannot send this file with {id}: its engine sends none of this size",
                code="not_supported",
            ) from error
        if error.code in ("timeout", "internal", "busy", "file_lost"):
            raise TryLater(
                f"cannot hand the file over to {id}: {error}", code="not_sent"
            ) from error
        raise
