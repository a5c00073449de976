"""What each series reads now: one look after another, and only what may have changed."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import ref

from agent.core.model import InstanceId
from agent.core.view import InstanceView

if TYPE_CHECKING:
    from agent.core.alerts.source import Figures, Key, Series, Vector


@lru_cache(maxsize=1 << 14)
def key_of(id: InstanceId) -> "Key":
    """One object for all series of a session."""
    return (("session", str(id)),)


class Readings:
    """The series as last read. Of a session whose view is the same object nothing is read again,
    and a series with the same values stays the same object."""

    def __init__(self) -> None:
        self._look = 0
        self._views: Mapping[InstanceId, InstanceView] | None = None
        self._figures: Figures | None = None
        self._seen: dict[InstanceId, ref[InstanceView]] = {}
        self._changed: dict[InstanceId, InstanceView] = {}
        self._left: tuple[Key, ...] = ()
        """The sessions that have a new view, or none any more."""
        self._last: dict[Series, tuple[int, Vector]] = {}
        """By the look at which they were read."""

    def of(
        self, series: "Series", views: Mapping[InstanceId, InstanceView], figures: "Figures"
    ) -> "Vector":
        """`views` and `figures` are new objects at each look."""
        if views is not self._views or figures is not self._figures:
            self._begin(views, figures)
        look, before = self._last.get(series, (-1, None))
        if before is not None and look == self._look:
            return before
        if before is not None and look == self._look - 1 and series.of_session is not None:
            values = self._follow(series, before, figures)
        else:
            values = series.read(views, figures)
        if before is not None and values == before:
            values = before
        self._last[series] = self._look, values
        return values

    def end_look(self) -> None:
        """Keep no view until the next look."""
        self._views, self._figures, self._changed = None, None, {}

    def _begin(self, views: Mapping[InstanceId, InstanceView], figures: "Figures") -> None:
        self._look += 1
        self._views, self._figures, seen = views, figures, self._seen
        self._changed = {
            id: view
            for id, view in views.items()
            if (last := seen.get(id)) is None or last() is not view
        }
        left = {*self._changed, *(id for id in seen if id not in views)}
        self._left = tuple(map(key_of, left))
        for id in left - views.keys():
            del seen[id]
        seen.update((id, ref(view)) for id, view in self._changed.items())

    def _follow(self, series: "Series", before: "Vector", figures: "Figures") -> "Vector":
        """What it was, with what it is where it may have changed."""
        if not self._left:
            return before
        values = dict(before)
        for key in self._left:
            values.pop(key, None)
        values.update(series.read(self._changed, figures))
        return values
