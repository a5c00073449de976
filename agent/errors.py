"""The one family of errors. The API or the CLI reacts to each class differently: its `code` is
stable in the API, its `http` status and its `exit_status` are what the two fronts answer."""


class WaError(Exception):
    """Something that we can name. The message says "cannot <verb> <thing>: <cause>"."""

    code, http, exit_status = "internal", 500, 1

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class InvalidRequest(WaError):
    """A request that cannot be understood."""

    code, http, exit_status = "invalid_request", 400, 2


class Unauthorized(WaError):
    code, http = "unauthorized", 401


class Forbidden(WaError):
    code, http = "forbidden", 403


class NotFound(WaError):
    code, http, exit_status = "not_found", 404, 3


class Refused(WaError):
    """A request that is understood, but that the present state does not allow."""

    code, http, exit_status = "refused", 409, 4


class TooLarge(WaError):
    code, http, exit_status = "too_large", 413, 2


class TryLater(WaError):
    """A request that would work at another moment: busy, starting, locked by another process."""

    code, http, exit_status = "try_later", 503, 75


class NotYet(TryLater):
    """An answer that comes by itself later: no failure of the agent."""


class AgentUnreachable(WaError):
    """The command line found no agent to talk to."""

    code, exit_status = "agent_unreachable", 5


class ConfigError(WaError):
    """A person must edit a file (or run another version) before a start makes sense."""

    code, exit_status = "config", 78


class FolderUnusable(WaError):
    """A worker's own folder or its identity file is away or unreadable; it may be whole again soon.

    The agent looks after the folder and starts the worker again: a restart alone changes nothing.
    """

    code, exit_status = "bad_identity", 66


class StoreError(WaError):
    """The database cannot be read or written now; its code says why (full, read-only, ...)."""

    code, http = "store", 507


class SchemaTooNew(ConfigError):
    """The database was written by a newer version: never touch it."""

    code = "schema_too_new"


class VaultError(WaError):
    """Session files cannot be read or written; its code says why (full, damaged, a link, ...)."""

    code, http = "vault", 507


class HostError(WaError):
    """The machine did not start, stop or describe a worker."""

    code, http = "host", 502


class LinkError(WaError):
    """A worker cannot be reached, or what it says cannot be accepted."""

    code, http = "link", 502


class EngineError(WaError):
    """The engine could not do what was asked; its cause is in the message."""

    reached = True
    """False if the request surely never got to the server that it was for."""
    code, http = "engine", 502


def cause_of(error: BaseException) -> str:
    """Return the cause for people: without a system error's number, and the path it is about."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
