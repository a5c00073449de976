"""Commands on whose order something hangs."""

from tests.trial.hostile.operating.commands import BACKENDS, BOTS, IDS, words_of

COPIES = words_of(
    "POST {I}/snapshots, POST {I}/snapshots/{snapshot}/restore, POST {I}/export, POST "
    "/api/import, POST /api/trash/{name}/restore, DELETE {I}, POST {I}/enable, POST {I}/disable, "
    "POST {I}/stop, POST {I}/start, POST {I}/cleanup, POST {I}/logout, import, restore, trash "
    "restore, delete"
)
REPAIRS = words_of(
    "POST {I}/cleanup, POST {I}/ensure-healthy, POST {I}/recover, POST /api/v1/whatsapp/setup, "
    "POST {I}/restart, POST {I}/logout, POST {I}/stop, POST {I}/start, POST {I}/sandbox/fault, "
    "PUT {I}/passkey, POST /force-reconnection/{id}, POST /reset-circuit-breaker/{id}, PUT "
    "/whatsapp/{id}/disconnect, PUT /whatsapp/{id}/start-session, DELETE {I}, POST /api/instance, "
    "cleanup, repair, recover"
)
SERVERS = words_of(
    "POST {I}/removed/{removed}/restore, POST {I}/cleanup, POST {I}/logout, POST {I}/recover, "
    "POST {I}/ensure-healthy, POST /api/v1/whatsapp/setup, POST {I}/restart, DELETE {I}, "
    "POST /api/backends/{name}/adopt, POST /api/backends/{name}/check, "
    "POST /api/backends/{name}/reset, GET {I}/qr, POST {I}/pairing-code, removed restore, "
    "backends adopt, script"
)
UNLINKS = ("POST {I}/logout", "POST {I}/sandbox/fault")
UNREADABLE = (
    "Session error:Error: Bad MAC Error: Bad MAC\n"
    "    at Object.verifyMAC (x.js:87:15)\n    at async {peer}.0 [as awaitable] (queue.js)"
)
"""Lines that libsignal prints of a message that it cannot read."""
THEMES = {
    "copies": (COPIES, ("a", "b", *BOTS, *BOTS)),
    "linked": (COPIES | REPAIRS, ("wa",)),
    "repairs": (REPAIRS, ("a", "b", "c")),
    "servers": (SERVERS, (*BACKENDS,)),
    "anything": (frozenset(), IDS),
}
"""Commands on whose order something hangs (none: all commands), and sessions."""
