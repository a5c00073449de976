"""Two [[backend]] that are one server: each session that both adopt would be watched and repaired
twice. Names are resolved, so a call may take as long as the resolver does."""

import fnmatch
import re
import socket
from collections.abc import Iterator, Sequence
from itertools import combinations
from urllib.parse import SplitResult, urlsplit

from agent.config.declaration import BackendDeclaration

ADVICE = "remove one of the two, or let adopt of each name other sessions"


def one_server(backends: Sequence[BackendDeclaration]) -> Iterator[str]:
    """A sentence for each pair of backends that would adopt the same sessions of one server."""
    for first, second in combinations(backends, 2):
        if (
            first.engine == second.engine
            and _overlap(first.adopt, second.adopt)
            and _same_place(first.url, second.url)
        ):
            yield (
                f"backend {first.name} and backend {second.name} are one server"
                f" ({urlsplit(first.url).netloc.rpartition('@')[2]}), and adopt of both takes the"
                " same sessions: each of them becomes two instances, which both repair it"
            )


def _overlap(first: Sequence[str], second: Sequence[str]) -> bool:
    return any(_may_match_the_same(one, other) for one in first for other in second)


def _may_match_the_same(one: str, other: str) -> bool:
    if fnmatch.fnmatchcase(one, other) or fnmatch.fnmatchcase(other, one):
        return True
    if not (_is_pattern(one) and _is_pattern(other)):
        return False
    heads, tails = zip(_ends(one), _ends(other), strict=True)
    starts = heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])
    return starts and (tails[0].endswith(tails[1]) or tails[1].endswith(tails[0]))


def _is_pattern(word: str) -> bool:
    return re.search(r"[*?\[]", word) is not None


def _ends(pattern: str) -> tuple[str, str]:
    """What stands before the first and after the last sign that matches others."""
    parts = re.split(r"[*?\[\]]", pattern)
    return parts[0], parts[-1]


def _same_place(first: str, second: str) -> bool:
    one, other = urlsplit(first), urlsplit(second)
    if (_port(one), one.path.rstrip("/")) != (_port(other), other.path.rstrip("/")):
        return False
    if one.hostname == other.hostname:
        return True
    return bool(_addresses(one.hostname) & _addresses(other.hostname))


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _addresses(host: str | None) -> frozenset[str]:
    """Of none where the name is not known now: nothing is said of it then."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return frozenset()
