"""Runs in a worker under test: long waits are short until the test wants a start to succeed."""

import signal

from agent.engines.web import session, view

SHORT = 2.0
_MODULES = {"SLOW_INJECTION": view, "SILENT": view, "LOAD": session}


def hurry(*names: str) -> None:
    """SIGUSR1 makes these waits as long as they are."""
    long = {name: getattr(_MODULES[name], name) for name in names}

    def set_to(seconds: dict[str, float]) -> None:
        for name in names:
            setattr(_MODULES[name], name, seconds[name])

    signal.signal(signal.SIGUSR1, lambda *_: set_to(long))
    set_to(dict.fromkeys(names, SHORT))
