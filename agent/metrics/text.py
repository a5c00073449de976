"""The text formats of Prometheus: families, escaping, numbers, and the choice of the format."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END_OF_OPENMETRICS = b"# EOF\n"

GAUGE, COUNTER, SUMMARY, HISTOGRAM = "gauge", "counter", "summary", "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name in the samples, its type and its meaning."""

    name: str
    type: str
    meaning: str

    def head(self, *, openmetrics: bool) -> bytes:
        # OpenMetrics names a counter's family without the ending that its samples have.
        name = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {name} {self.meaning}\n# TYPE {name} {self.type}\n".encode()


def wants_openmetrics(accept: str) -> bool:
    best = {"openmetrics": 0.0, "plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if kind == "application/openmetrics-text":
            best["openmetrics"] = max(best["openmetrics"], quality)
        elif kind in ("text/plain", "text/*", "*/*"):
            best["plain"] = max(best["plain"], quality)
    return best["openmetrics"] > 0 and best["openmetrics"] >= best["plain"]


def escape(value: str) -> str:
    """A label's value that stays inside its quotes and its line."""
    clean = value.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(round(value, 6))


def histogram_lines(
    name: str, bounds: Iterable[str], counts: Iterable[int], total: float, **labels: str
) -> str:
    """`counts`: of each bound alone, then of all larger values."""
    so_far, lines = 0, []
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        so_far += count
        lines.append(sample(f"{name}_bucket", so_far, **labels, le=bound))
    lines.append(sample(f"{name}_sum", total, **labels))
    lines.append(sample(f"{name}_count", so_far, **labels))
    return "".join(lines)


def sample(name: str, value: float, **labels: str) -> str:
    inner = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {number(value)}\n" if inner else f"{name} {number(value)}\n"
