"""Two [[backend]] that are one server: each session that both adopt would be watched and repaired
twice."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from urllib.parse import urlsplit

from agent.config.declaration import BackendDeclaration

ADVICE = "remove one of the two, or let adopt of each name other sessions"


def one_server(backends: Sequence[BackendDeclaration]) -> Iterator[str]:
    """A sentence for each pair of backends that would adopt the same sessions of one server."""
    for first, second in combinations(backends, 2):
        if (
            first.engine == second.engine
            and _overlap(first.adopt, second.adopt)
            and _place(first.url) == _place(second.url)
        ):
            yield (
                f"backend {first.name} and backend {second.name} are one server"
                f" ({urlsplit(first.url).netloc.rpartition('@')[2]}), and adopt of both takes the"
                " same sessions: each of them becomes two instances, which both repair it"
            )


def _overlap(first: Sequence[str], second: Sequence[str]) -> bool:
    return any(fnmatchcase(a, b) or fnmatchcase(b, a) for a in first for b in second)


def _place(url: str) -> tuple[str | None, int, str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return host, port, parts.path.rstrip("/")
