"""A room's figures for /metrics. prometheus_client writes them, loaded by the first scrape."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Summary:
    total: float
    count: int


Row = tuple[dict[str, str], float | Summary]
"""Labels and value."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a counter if its name ends in `_total`, else what its values are.

    The scrape's thread reads `rows`: a number may be newer than the one before it.
    """

    name: str
    meaning: str
    rows: Iterable[Row]

    def collect(self) -> "Iterator[Metric]":
        """As prometheus_client asks a collector. Samples are made one by one: those of a family
        of a thousand sessions would take 25 MB."""
        from prometheus_client import Metric

        rows, plain = iter(self.rows), "counter" if self.name.endswith("_total") else "gauge"
        for first in rows:
            kind = "summary" if isinstance(first[1], Summary) else plain
            metric = Metric(self.name.removesuffix("_total"), self.meaning, kind)
            metric.samples = _samples(self.name, chain((first,), rows))  # type: ignore[assignment]
            yield metric


def _samples(name: str, rows: Iterable[Row]) -> "Iterator[Sample]":
    from prometheus_client.samples import Sample

    for labels, value in rows:
        labels = {key: _clean(text) for key, text in labels.items()}
        if isinstance(value, Summary):
            yield Sample(f"{name}_sum", labels, value.total)
            yield Sample(f"{name}_count", labels, value.count)
        else:
            yield Sample(name, labels, value)


def one(name: str, meaning: str, value: float | Summary | None) -> Family:
    """A family without labels; None: left out."""
    return Family(name, meaning, () if value is None else [({}, value)])


def by_label(name: str, meaning: str, label: str, counts: Mapping[str, float]) -> Family:
    return Family(name, meaning, [({label: word}, count) for word, count in counts.items()])


def render(families: Iterable[Family], *, gzip: bool = False) -> bytes:
    """Family by family: the whole text of a thousand sessions has 12 MB."""
    from prometheus_client import generate_latest

    texts = map(generate_latest, families)
    if not gzip:
        return b"".join(texts)
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*map(packer.compress, texts), packer.flush()])


def _clean(text: str) -> str:
    """Half a surrogate pair, which a server may send, cannot be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
