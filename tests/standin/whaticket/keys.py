"""Where the stand-in's sessions keep their keys: a folder of files."""

import base64
import json
import os
from pathlib import Path


class FolderKeys:
    """`useMultiFileAuthState`: one file per key, written in place and not atomically."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, id: str) -> Path:
        return self.root / id

    async def load(self, id: str) -> dict[str, str]:
        folder = self.folder(id)
        if not folder.is_dir():
            return {}
        return {
            _name(path.name): path.read_text()
            for path in folder.iterdir()
            if path.suffix == ".json"
        }

    async def write(self, id: str, name: str, text: str) -> None:
        folder = self.folder(id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file_name(name)).write_text(text)

    async def wipe(self, id: str) -> None:
        for path in self.folder(id).glob("*"):
            path.unlink()


def file_name(name: str) -> str:
    return name.replace("/", "__").replace(":", "-") + ".json"


def _name(file: str) -> str:
    """The way back is not unique; group keys are the only names with colons here."""
    name = file.removesuffix(".json").replace("__", "/")
    if name.startswith("sender-key-") and not name.startswith("sender-key-memory-"):
        name = name.replace("--", "::")
    return name


def buffer(length: int) -> dict[str, str]:
    """Bytes as BufferJSON writes them."""
    return {"type": "Buffer", "data": base64.b64encode(os.urandom(length)).decode()}


def fresh(kind: str) -> str:
    """A record in the form that Baileys 6 and 7 store, with random keys in it."""

    def key(length: int = 32) -> str:
        return base64.b64encode(os.urandom(length)).decode()

    match kind:
        case "session":
            base = key(33)
            entry = {
                "registrationId": 12,
                "currentRatchet": {
                    "ephemeralKeyPair": {"pubKey": key(33), "privKey": key()},
                    "lastRemoteEphemeralKey": key(33),
                    "previousCounter": 0,
                    "rootKey": key(),
                },
                "indexInfo": {
                    "baseKey": base,
                    "baseKeyType": 2,
                    "closed": -1,
                    "used": 1795176146980,
                    "created": 1795176146980,
                    "remoteIdentityKey": key(33),
                },
                "_chains": {
                    key(33): {
                        "chainKey": {"counter": 0, "key": key()},
                        "chainType": 2,
                        "messageKeys": {},
                    }
                },
            }
            return json.dumps({"_sessions": {base: entry}, "version": "v1"})
        case "sender key":
            state = {
                "senderKeyId": 7,
                "senderChainKey": {"iteration": 0, "seed": buffer(32)},
                "senderSigningKey": {"public": buffer(33), "private": buffer(0)},
                "senderMessageKeys": [],
            }
            raw = base64.b64encode(json.dumps([state]).encode()).decode()
            return json.dumps({"type": "Buffer", "data": raw})
        case "pre-key":
            return json.dumps({"private": buffer(32), "public": buffer(32)})
        case "identity":
            return json.dumps(buffer(33))
        case "memory":
            return json.dumps({"5511999990001:0@s.whatsapp.net": True})
        case _:
            return json.dumps({"kind": kind, "buffer": buffer(24)})


def paired_keys(number: str, peers: list[str], lids: dict[str, str]) -> dict[str, str]:
    """Return the keys of a session that has been paired for a while."""
    keys = {
        "creds": json.dumps({"me": {"id": f"{number}:9@s.whatsapp.net"}, "noise": fresh("noise")}),
        "app-state-sync-key-AAAAAMYx": fresh("app state"),
        "app-state-sync-version-regular": fresh("version"),
        "sender-key-memory-120363000000000001@g.us": fresh("memory"),
    }
    for number_of in range(1, 6):
        keys[f"pre-key-{number_of}"] = fresh("pre-key")
    for peer in peers:
        keys |= peer_keys(peer, lids.get(peer, ""))
    return keys


def peer_keys(peer: str, lid: str = "") -> dict[str, str]:
    keys = {
        f"session-{peer}.0": fresh("session"),
        f"session-{peer}.12": fresh("session"),
        f"sender-key-120363000000000001@g.us::{peer}::0": fresh("sender key"),
        f"device-list-{peer}": fresh("devices"),
    }
    if lid:
        keys |= {
            f"session-{lid}_1.0": fresh("session"),
            f"identity-key-{lid}_1.0": fresh("identity"),
            f"sender-key-120363000000000001@g.us::{lid}_1::0": fresh("sender key"),
            f"lid-mapping-{peer}": json.dumps(lid),
            f"lid-mapping-{lid}_reverse": json.dumps(peer),
        }
    return keys
