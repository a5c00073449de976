"""The progress of a page's loading: the bytes that came, by the browser's network events. Only
during a start: the browser sends an event for each piece of each answer."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent.engines.web.browser.connection import DebuggerConnection
from agent.errors import EngineError

_KINDS = frozenset({"Document", "Script", "Stylesheet"})
"""What a page is made of. A page that asks its server again and again makes no progress by that."""
_WITHIN = 10.0
_NO_BODIES = {"maxTotalBufferSize": 1, "maxResourceBufferSize": 1}


class Loading:
    """Watches while it is switched on; `bytes` belong to the document that is shown."""

    def __init__(self, debugger: DebuggerConnection) -> None:
        self._debugger = debugger
        self._parts: set[str] = set()
        self._on = False
        self._bypass = False
        self.bytes = 0
        self.status = 0
        """HTTP's status of the last document; 0: none came."""
        debugger.on("Network.requestWillBeSent", self._asked)
        debugger.on("Network.responseReceived", self._answered)
        debugger.on("Network.dataReceived", self._came)

    def new_document(self) -> None:
        self.bytes = 0

    async def watch(self, *, within: float = _WITHIN) -> None:
        if not self._on:
            await self._debugger.call("Network.enable", _NO_BODIES, within=within)
            self._on = True

    async def bypass_service_worker(self) -> None:
        """For as long as this page lives."""
        self._bypass = True
        await self.watch()
        await self._call("Network.setBypassServiceWorker", {"bypass": True})

    async def forget_caches(self, origin: str) -> None:
        """Forget the browser's caches of the page. IndexedDB and local storage have the pairing:
        they are not named here."""
        await self.watch()
        await self._call("Network.setBypassServiceWorker", {"bypass": True})
        await self._call("Network.setCacheDisabled", {"cacheDisabled": True})
        await self._call("Network.clearBrowserCache", {})
        kinds = "service_workers,cache_storage,shader_cache"
        await self._call("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": kinds})

    async def rest(self) -> None:
        """The page is there: no more events of its network."""
        self._parts.clear()
        if not self._on or self._bypass:
            return
        self._on = False
        with suppress(EngineError):
            await self._call("Network.disable", {})

    async def _call(self, method: str, params: Mapping[str, Any]) -> None:
        await self._debugger.call(method, params, within=_WITHIN)

    def _asked(self, event: Mapping[str, Any]) -> None:
        if event.get("type") in _KINDS:
            self._parts.add(str(event.get("requestId")))

    def _answered(self, event: Mapping[str, Any]) -> None:
        status = (event.get("response") or {}).get("status")
        if event.get("type") == "Document" and isinstance(status, int):
            self.status = status

    def _came(self, event: Mapping[str, Any]) -> None:
        size = event.get("dataLength")
        if event.get("requestId") in self._parts and isinstance(size, int):
            self.bytes += size
