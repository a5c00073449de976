"""How a worker ended, in systemd's words. Pure."""

import signal

from agent.host.process.child import Exit

NEVER_RESTARTED = (66, 78)
"""As the units' RestartPreventExitStatus=: its folder cannot be used; a setting is wrong."""
SYSTEMDS_OWN = {
    66: "its folder or its identity file cannot be used",
    200: "its working folder cannot be entered",
    203: "its program cannot be executed",
    216: "its group is unknown",
    217: "its user is unknown",
    226: "its view of the file system cannot be made (a path of its unit is missing?)",
    233: "its runtime folder cannot be made",
    238: "its state folder cannot be made",
    243: "a credential of its unit cannot be read (the file of a LoadCredential= is missing?)",
}
"""What an exit status says: the worker's own, and systemd's of a program it could not start."""
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def result_of(how: Exit, *, was_ready: bool, stop_wanted: bool) -> str:
    """For an end that the host did not bring about by force."""
    if how.signal is not None:
        if how.signal in _CLEAN_SIGNALS:
            return "success"
        return "core-dump" if how.dumped else "signal"
    if how.code is None:
        # An adopted worker's end is seen, but not how; what was asked for counts as done.
        return "success" if stop_wanted else "exit-code"
    if how.code:
        return "exit-code"
    return "success" if was_ready or stop_wanted else "protocol"


def words(result: str, exit_status: int) -> str:
    if not exit_status:
        return result
    meaning = SYSTEMDS_OWN.get(exit_status, "")
    return f"{result}, exit status {exit_status}" + (f": {meaning}" if meaning else "")
