"""What changed in a small session since its last stored copy, and a copy that has its changes."""

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InvalidRequest, VaultError
from agent.vault.archives.pack import INNER, pack_pieces
from agent.vault.archives.untar import Limits, read_members
from agent.vault.copies.manifest import Manifest, parse_manifest, render_manifest
from agent.vault.tree import Listing, sum_up

_LENGTH = 4
_LEVEL = 6


def pack_change(
    manifest: Manifest, removed: Sequence[str], files: Iterable[str], content: Mapping[str, bytes]
) -> bytes:
    """`manifest` lists the files that are new, `content` has them; `files`: all paths by now."""
    told = {"manifest": json.loads(render_manifest(manifest)), "removed": list(removed)}
    head = json.dumps(told | {"names": _names(files)}, separators=(",", ":")).encode()
    new = b"".join(content[file.path] for file in manifest.listing.files)
    return zlib.compress(len(head).to_bytes(_LENGTH, "big") + head + new, _LEVEL)


def with_changes(archive: bytes, changes: Sequence[bytes], limits: Limits) -> bytes:
    """The archive as it was after the last of its changes; VaultError `damaged` otherwise."""
    try:
        return _with_changes(archive, changes, limits)
    except (ValueError, KeyError, TypeError, zlib.error, InvalidRequest) as error:
        raise VaultError(f"cannot use the changes of a copy: {error}", code="damaged") from error


def _with_changes(archive: bytes, changes: Sequence[bytes], limits: Limits) -> bytes:
    members = read_members(io.BytesIO(archive), limits)
    content = {it.name: b"".join(it.pieces) for it in members}
    content = {name.removeprefix(INNER): it for name, it in content.items() if INNER in name}
    for change in changes:
        told, new = _opened(change, limits)
        manifest = parse_manifest(json.dumps(told["manifest"]).encode(), Path("a change"))
        for path in told["removed"]:
            del content[path]
        for file in manifest.listing.files:
            piece, new = new[: file.size], new[file.size :]
            if hashlib.sha256(piece).hexdigest() != file.sha256:
                raise ValueError("a file has another checksum")
            content[file.path] = piece
        if new or _names(content) != told["names"]:
            raise ValueError("it follows another copy or change")
    listed = tuple(sum_up(path, (content[path],)) for path in sorted(content))
    return _packed(manifest, Listing(listed, manifest.listing.folders), content)


def _names(paths: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(paths)).encode()).hexdigest()


def _opened(change: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    raw = zlib.decompressobj().decompress(change, limits.unpacked)
    end = _LENGTH + int.from_bytes(raw[:_LENGTH], "big")
    return json.loads(raw[_LENGTH:end]), raw[end:]


def _packed(manifest: Manifest, listing: Listing, content: Mapping[str, bytes]) -> bytes:
    whole, out = replace(manifest, listing=listing), io.BytesIO()
    pack_pieces(render_manifest(whole), whole, lambda file: iter((content[file.path],)), out)
    return out.getvalue()
