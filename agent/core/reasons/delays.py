"""[reconnect.reasons]: delays of single reasons, read from the settings and shown as TOML."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.reasons import REASONS

LONGEST = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class ReasonDelay:
    """Delays that the settings give instead of a reason's own; None = the reason's. Seconds."""

    code: str
    base: float | None = None
    max: float | None = None


def read_reasons(table: Any) -> tuple[ReasonDelay, ...]:
    """From `code = {base = 1.0, max = 300.0}`, either optional. ValueError names the fault."""
    if not isinstance(table, Mapping):
        raise ValueError("it must be a table: [reconnect.reasons]")  # noqa: TRY004 - a setting's
    return tuple(_read(str(code), row) for code, row in table.items())


def show_reasons(reasons: tuple[ReasonDelay, ...]) -> str:
    rows = []
    for reason in reasons:
        parts = {"base": reason.base, "max": reason.max}
        row = ", ".join(f"{name} = {value!r}" for name, value in parts.items() if value is not None)
        rows.append(f"{reason.code} = {{{row}}}")
    return f"{{{', '.join(rows)}}}"


def _read(code: str, table: Any) -> ReasonDelay:
    row = REASONS.get(code)
    if row is None or row.hopeless:
        cause = "there is no such reason" if row is None else "the agent never retries after it"
        raise ValueError(f"{code[:60]!r}: {cause}; `wa-agent reasons` lists them")
    if not isinstance(table, Mapping) or not table or not set(table) <= {"base", "max"}:
        raise ValueError(f"{code} must be like {{base = 1.0, max = 300.0}}")
    for name, value in table.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= LONGEST:
            raise ValueError(
                f"{name} of {code} must be 0 to {LONGEST:g} seconds, not {value!r:.40}"
            )
    base, longest = (None if (v := table.get(n)) is None else float(v) for n in ("base", "max"))
    if base is not None and longest is not None and base > longest:
        raise ValueError(f"base of {code} is above its max")
    return ReasonDelay(code, base, longest)
