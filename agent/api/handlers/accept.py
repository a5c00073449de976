"""Chooses the type of an answer by the Accept header."""

from collections.abc import Sequence


def choose_form(accept: str, offered: Sequence[str]) -> str | None:
    """The offered type that the header prefers; the first one for */*."""
    best, best_quality, best_exact = None, 0.0, -1
    for part in (accept or "*/*").split(","):
        wanted, *parameters = (word.strip() for word in part.split(";"))
        quality = _quality(parameters)
        for form in offered:
            exact = _matches(wanted.lower(), form)
            if exact >= 0 and (quality, exact) > (best_quality, best_exact) and quality > 0:
                best, best_quality, best_exact = form, quality, exact
    return best


def takes_gzip(accept_encoding: str) -> bool:
    """Whether the client names gzip; `*` alone does not count."""
    for part in accept_encoding.split(","):
        wanted, *parameters = (word.strip() for word in part.split(";"))
        if wanted.lower() == "gzip":
            return _quality(parameters) > 0
    return False


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _matches(wanted: str, form: str) -> int:
    """2 = the type itself, 1 = its family, 0 = */*, -1 = no match."""
    if wanted == form:
        return 2
    if wanted == form.partition("/")[0] + "/*":
        return 1
    return 0 if wanted == "*/*" else -1
