"""The result of a worker's end, in systemd's words."""

import signal

from agent.host.process.child import Exit

NEVER_RESTARTED = (66, 77, 78)
"""As the units' RestartPreventExitStatus=: its folder cannot be used; the lease of its machine
ended; a setting is wrong."""
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def result_of(how: Exit, *, was_ready: bool, stop_wanted: bool) -> str:
    """For an end that the host did not bring about by force."""
    if how.signal is not None:
        if how.signal in _CLEAN_SIGNALS:
            return "success"
        return "core-dump" if how.dumped else "signal"
    if how.code is None:
        # How an adopted worker ended is unknown; what was asked for counts as done.
        return "success" if stop_wanted else "exit-code"
    if how.code:
        return "exit-code"
    return "success" if was_ready or stop_wanted else "protocol"
