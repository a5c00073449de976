"""Which of a session's keys belong to one peer, by the names that Baileys gives them. The same
names are files (`/` as `__`, `:` as `-`, `.json` at the end) and Redis suffixes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ADDRESS = re.compile(r"(?P<user>\d{1,20})(?:_\d{1,3})?(?:\.\d{1,5})?")
_JID = re.compile(
    r"(?P<user>\d{5,20})(?:_\d{1,3})?(?::(?P<device>\d{1,5}))?@(?P<server>[a-z.]{2,20})"
)
_AGENTS = {"s.whatsapp.net": "", "c.us": "", "lid": "_1", "hosted": "_128", "hosted.lid": "_129"}
"""What a Signal address adds to the user of another server than the usual."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The users whose keys are meant, each with all its devices and forms."""

    users: frozenset[str]

    def owns(self, name: str) -> bool:
        """Whether that key is one of theirs, and one that a new handshake replaces. Never creds,
        pre-keys or app-state keys; nor `sender-key-memory`, which is the account's own."""
        for pattern in _OWNED:
            if owned := pattern.fullmatch(name):
                return owned["user"] in self.users
        return False


_USER = r"(?P<user>\d{1,20})(?:_\d{1,3})?"
_OWNED = (
    re.compile(rf"session-{_USER}\.\d{{1,5}}"),
    re.compile(rf"identity-key-{_USER}(?:\.\d{{1,5}})?"),
    re.compile(rf"sender-key-(?!memory-)[^/]{{1,200}}?(?:--|::){_USER}(?:--|::)\d{{1,5}}"),
)


def user_of(peer: str) -> str:
    """`5511999999999`, `123456789012345_1`, `5511999999999.3` → the digits; "" for no address."""
    address = _ADDRESS.fullmatch(peer.strip()) or _JID.fullmatch(peer.strip())
    return address["user"] if address else ""


def address_of_jid(jid: str) -> str:
    """The Signal address of a JID: `user.device`, of a LID `user_1.device`; "" for a group."""
    parts = _JID.fullmatch(jid)
    if parts is None or parts["server"] not in _AGENTS:
        return ""
    return f"{parts['user']}{_AGENTS[parts['server']]}.{parts['device'] or 0}"


def mappings_of(user: str) -> tuple[str, str]:
    """The keys that tell a user's other form: number → LID, and LID → number."""
    return f"lid-mapping-{user}", f"lid-mapping-{user}_reverse"


def with_mapped(users: Iterable[str], mapped: Iterable[object]) -> Peers:
    """Those users and what the mappings say they are called otherwise."""
    more = {user_of(name) for name in mapped if isinstance(name, str)}
    return Peers(frozenset(users) | (more - {""}))
