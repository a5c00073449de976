"""Files through our API and a real server: what a contact's phone has of them afterwards."""

import hashlib
from base64 import b64decode, b64encode

from scripts.real_evolution.messages import PEER, SETTLED_WITHIN, Count, Walk

_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_BYTES = bytes(range(251)) * 4
FILES = (
    ("image", "image/png", b64decode(_PIXEL)),
    ("document", "application/pdf", _BYTES * 1000),
    ("audio", "audio/mpeg", _BYTES),
    ("audio", "audio/ogg; codecs=opus", _BYTES * 2),
    ("video", "video/mp4", _BYTES * 3),
)


async def send_files(walk: Walk) -> Count:
    """2.x makes a picture of its own of an image; the others must be the same."""
    for number, (_, mimetype, content) in enumerate(FILES):
        body = {"to": PEER, "type": "media", "mimetype": mimetype}
        body["content"] = b64encode(content).decode()
        path = f"/api/instance/{walk.ours}/messages?wait={SETTLED_WITHIN:.0f}"
        status, answer = await walk.agent.ask(
            "POST", path, body, {"Idempotency-Key": f"file-{number}"}
        )
        assert status == 200, (mimetype, answer)
    heard = [it["file"] for it in walk.bed.whatsapp.person(PEER)["heard"] if it.get("file")]
    sums = {it["sha256"] for it in heard}
    lost = sum(
        kind not in {it["kind"] for it in heard}
        or (kind != "image" and hashlib.sha256(content).hexdigest() not in sums)
        for kind, _, content in FILES
    )
    return Count("files out, through wa-agent", len(FILES), lost, 0, max(len(heard) - 5, 0))
