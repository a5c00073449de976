"""What a reader is told of a file that a contact sent. Pure: its name and its type are words of the
contact, and neither may choose a path, draw on a terminal or run as a page."""

import re
from urllib.parse import quote

OCTETS = "application/octet-stream"
SAFE = frozenset(
    {
        *("image/jpeg", "image/png", "image/gif", "image/webp"),
        *("audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr"),
        *("video/mp4", "video/3gpp", "video/webm"),
        "application/pdf",
    }
)
"""Types that no browser runs as a page; any other file is only octets."""
LONGEST_NAME = 150
_NO_NAME = re.compile(r"[^\w .,()\[\]+=@~#-]", re.ASCII)
_ENDINGS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "audio/ogg": ".ogg",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "video/mp4": ".mp4",
    "application/pdf": ".pdf",
}


def type_of(mimetype: object) -> str:
    """One of SAFE, else octets."""
    plain = mimetype.partition(";")[0].strip().lower() if isinstance(mimetype, str) else ""
    return plain if plain in SAFE else OCTETS


def file_name(filename: object, mimetype: object) -> str:
    """One part of a path without signs that control something; never empty, never hidden."""
    text = filename if isinstance(filename, str) else ""
    last = re.split(r"[/\\]", text)[-1]
    printable = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*')
    # Bytes are what a file system counts.
    whole = printable.encode("utf-8", "ignore")
    if len(whole) > LONGEST_NAME:
        stem, dot, ending = printable.rpartition(".")
        tail = (dot + ending).encode() if stem and len(ending) <= 10 else b""
        cut = (stem if tail else printable).encode("utf-8", "ignore")[: LONGEST_NAME - len(tail)]
        whole = cut + tail
    name = whole.decode("utf-8", "ignore").strip(" .")
    return name or "file" + _ENDINGS.get(type_of(mimetype), "")


def disposition(name: str) -> str:
    """RFC 6266: for old readers in ASCII, for others as it is."""
    plain = _NO_NAME.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
