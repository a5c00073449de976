"""What a room counts, for /metrics. prometheus_client writes it, loaded by the first scrape."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Summary:
    total: float
    count: int


@dataclass(frozen=True, slots=True)
class Buckets:
    bounds: Sequence[float]
    counts: Sequence[int]
    """One more than there are bounds: the last counts what was larger."""
    total: float


Row = tuple[dict[str, str], float | Summary | Buckets]
"""Labels and value."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a counter if its name ends in `_total`, else what its values are.

    The scrape's thread reads `rows`: they hold nothing that changes.
    """

    name: str
    meaning: str
    rows: Iterable[Row]

    def collect(self) -> "Iterator[Metric]":
        """As prometheus_client asks a collector."""
        from prometheus_client import Metric

        counts = self.name.endswith("_total")
        metric = Metric(self.name.removesuffix("_total"), self.meaning, "gauge")
        for labels, value in self.rows:
            labels = {key: _clean(text) for key, text in labels.items()}
            if isinstance(value, Summary):
                metric.type = "summary"
                metric.add_sample(f"{self.name}_sum", labels, value.total)
                metric.add_sample(f"{self.name}_count", labels, value.count)
            elif isinstance(value, Buckets):
                metric.type, so_far = "histogram", 0
                for bound, count in zip((*value.bounds, "+Inf"), value.counts, strict=True):
                    so_far += count
                    metric.add_sample(f"{self.name}_bucket", {**labels, "le": str(bound)}, so_far)
                metric.add_sample(f"{self.name}_sum", labels, value.total)
                metric.add_sample(f"{self.name}_count", labels, so_far)
            else:
                metric.type = "counter" if counts else "gauge"
                metric.add_sample(self.name, labels, value)
        if metric.samples:
            yield metric


def one(name: str, meaning: str, value: float | Summary | None) -> Family:
    """A family without labels; None: left out."""
    return Family(name, meaning, () if value is None else [({}, value)])


def by_label(name: str, meaning: str, label: str, counts: Mapping[str, float]) -> Family:
    return Family(name, meaning, [({label: word}, count) for word, count in counts.items()])


def render(families: Iterable[Family]) -> bytes:
    from prometheus_client import generate_latest

    # One by one: the samples of all families at once would be many times the size of their text.
    return b"".join(map(generate_latest, families))


def _clean(text: str) -> str:
    """Half a surrogate pair, which a server may send, cannot be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
