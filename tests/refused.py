"""A block that ends in an error of that kind and code."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.errors import WaError


@contextmanager
def refused(
    kind: type[WaError], code: str, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[WaError]]:
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.value.code == code
