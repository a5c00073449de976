"""An alert's value and summary for people, formatted as Prometheus formats them."""

import math

from agent.core.alerts.alert import Alert, Unit
from agent.core.alerts.source import Key

_LARGE = ("k", "M", "G", "T", "P", "E", "Z", "Y")
_SMALL = ("m", "u", "n", "p", "f", "a", "z", "y")


def summarize(alert: Alert, labels: Key, value: float, reason: str = "") -> str:
    words = {
        "because": f": {reason}" if reason else "",
        "session": "",
        "engine": "",
        "backend": "",
        **dict(labels),
        "value": show_value(value, alert.unit),
    }
    return alert.summary.format_map(words)


def show_value(value: float, unit: Unit) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    match unit:
        case Unit.SHARE:
            return f"{_four(value * 100)}%"
        case Unit.SECONDS:
            return _duration(value)
        case Unit.BYTES:
            return _scaled(value, 1024.0, "i")
        case Unit.PLAIN:
            return _scaled(value, 1000.0, "")


def _four(value: float) -> str:
    """Four significant digits, as Go's %.4g prints them."""
    return f"{value:.4g}"


def _scaled(value: float, base: float, ending: str) -> str:
    if value == 0:
        return "0"
    prefix = ""
    if abs(value) >= 1:
        for name in _LARGE:
            if abs(value) < base:
                break
            prefix, value = name + ending, value / base
        return _four(value) + prefix
    if ending:
        return _four(value)
    for name in _SMALL:
        if abs(value) >= 1:
            break
        prefix, value = name, value * base
    return _four(value) + prefix


def _duration(value: float) -> str:
    if abs(value) < 1:
        return _scaled(value, 1000.0, "") + "s"
    sign, seconds = ("-", -int(value)) if value < 0 else ("", int(value))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds % 60}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds % 60}s"
    if minutes:
        return f"{sign}{minutes}m {seconds % 60}s"
    return f"{sign}{_four(value)}s" if not sign else f"-{_four(-value)}s"
