"""A receiver to try Alertmanager with: prints the notifications of the exported example."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from agent.cli.terminal.show import clean, moment
from agent.errors import InvalidRequest, WaError

_MOST = 1 << 20
_SILENCE = 10.0
"""Seconds that a sender may take; the listener serves one at a time."""


def listen(at: str, *, as_json: bool) -> int:
    host, _, port = at.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InvalidRequest(f"cannot listen at {at}: it is not HOST:PORT", field="at")

    class Receiver(BaseHTTPRequestHandler):
        timeout = _SILENCE

        def do_POST(self) -> None:
            notification = self._read()
            # Printed first: the program may end right after the answer.
            for line in lines_of(notification or {}, as_json=as_json):
                print(line, flush=True)
            self.send_response(200 if notification is not None else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _read(self) -> dict[str, Any] | None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > _MOST:
                return None
            try:
                body = json.loads(self.rfile.read(int(length)))
            except ValueError:
                return None
            return body if isinstance(body, dict) else None

        def log_message(self, format: str, *args: Any) -> None:
            """No access log: the listener prints the notification only."""

    try:
        with HTTPServer((host, int(port)), Receiver) as server:
            print(f"listening at {at}; Ctrl-C ends it", file=sys.stderr, flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise WaError(f"cannot listen at {at}: {error.strerror or error}") from error
    return 0


def lines_of(notification: dict[str, Any], *, as_json: bool = False) -> Iterator[str]:
    """One line for each alert of a notification."""
    alerts = notification.get("alerts")
    for alert in alerts if isinstance(alerts, list) else []:
        if not isinstance(alert, dict):
            continue
        if as_json:
            yield json.dumps(alert)
            continue
        labels, annotations = (alert.get(name) or {} for name in ("labels", "annotations"))
        over = alert.get("status") == "resolved"
        when = alert.get("endsAt" if over else "startsAt", "")
        words = (
            moment(str(when)),
            "is over" if over else labels.get("severity", ""),
            f"{labels.get('alertname', '')}: {annotations.get('summary', '')}",
            annotations.get("runbook", ""),
        )
        yield clean("  ".join(str(word) for word in words if word))
