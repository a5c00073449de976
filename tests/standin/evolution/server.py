"""The stand-in's routes, in the versions' guard order: it exists → the name is free → the key."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from unittest.mock import AsyncMock

from aiohttp import web

from agent.supervise import assemble
from tests.standin.evolution.faults import Front
from tests.standin.evolution.instances import Instance, Times
from tests.standin.evolution.meddling import Handler, Meddling
from tests.standin.evolution.shapes import (
    OLD_SETTINGS,
    Refused,
    created_body,
    no_instance,
    old_row_body,
    row_body,
    settings_body,
    state_body,
    swallowed,
)

KEY = "stand-in-global-key-4f1c9a"
_UNDEFINED = "Cannot read properties of undefined"


class StandIn:
    """Made by `open`; `close` ends it. All state is public: a test may look and set."""

    def __init__(self, version: str, times: Times, front: Front) -> None:
        self.version = version
        self.times = times
        self.front = front
        self.instances: dict[str, Instance] = {}
        self.silent = False
        """WhatsApp is silent for all: whatever is made here hangs in `connecting`."""
        self.asked: Counter[str] = Counter()
        """Requests by verb and route."""
        self.paths: Counter[str] = Counter()
        """The same by verb and whole path."""
        self._meddling = Meddling(front)
        self.list_seconds = 0.0
        self.without = ""
        """It has no routes that begin so, or a proxy before it passes none of them."""
        self.most_at_once = 0
        self._at_once = 0
        self._boot: asyncio.Task[None] | None = None
        self._runner = web.AppRunner(
            self._app(), access_log=None, handle_signals=False, shutdown_timeout=0.1
        )

    @classmethod
    async def open(cls, version: str = "2.3.7", *, times: Times | None = None) -> "StandIn":
        made = cls(version, times or Times.fast(), Front("127.0.0.1", 0))
        await made._runner.setup()
        assert made._runner.server is not None
        await made.front.open(made._runner.server)
        # The looks at WhatsApp of an agent in this process.
        assemble.look = AsyncMock(side_effect=lambda *_: "no answer" if made.silent else "")
        return made

    @property
    def old(self) -> bool:
        return self.version.startswith("1.")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    async def close(self) -> None:
        if self._boot is not None:
            self._boot.cancel()
        for instance in self.instances.values():
            instance.unload()
        await self.front.close()
        await self._runner.cleanup()

    def add(self, name: str, state: str = "close") -> Instance:
        """As if it had been there for long: `open`, `connecting` (unpaired) or `close`."""
        made = Instance(name, self.times, self.version)
        made.stuck = self.silent
        self.instances[name] = made
        if state == "open":
            made.creds, made.state = True, "open"
            made.row.set(connectionStatus="open", ownerJid=made.wuid)
        elif state == "connecting":
            made.connect()
        return made

    def silence(self, on: bool) -> None:
        """WhatsApp stops to answer all of them, or answers again."""
        self.silent = on
        for instance in self.instances.values():
            instance.silence(on)

    async def restart_process(self, away: float = 0.1) -> None:
        """The process dies and comes back: live states are gone, rows stay."""
        await self.front.set("refuse")
        for instance in self.instances.values():
            instance.unload()
        self._boot = asyncio.create_task(self._come_back(away))

    async def _come_back(self, away: float) -> None:
        await asyncio.sleep(away)
        await self.front.set("")
        await asyncio.sleep(away)
        for instance in self.instances.values():
            live = instance.row.connectionStatus in ("open", "connecting")
            instance.load(connects=live or self.version < "2.3.7")

    # the application

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._front_faults, self._errors], client_max_size=2**26)
        by_name = [
            ("GET", "/instance/connectionState", self._state),
            ("GET", "/instance/connect", self._connect),
            ("PUT" if self.old else "POST", "/instance/restart", self._restart),
            ("DELETE", "/instance/logout", self._logout),
            ("DELETE", "/instance/delete", self._delete),
            ("POST", "/instance/setPresence", self._presence),
            ("POST", "/chat/fetchBusinessProfile", self._profile),
            ("GET", "/settings/find", self._find_settings),
            ("POST", "/settings/set", self._set_settings),
            ("GET", "/proxy/find", self._find_proxy),
            ("GET", "/webhook/find", self._find_webhook),
            ("POST", "/webhook/set", self._set_webhook),
        ]
        for method, path, handler in by_name:
            app.router.add_route(method, path + "/{name}", self._guarded(handler))
        app.router.add_get("/", self._welcome)
        app.router.add_get("/instance/fetchInstances", self._list)
        app.router.add_post("/instance/create", self._create)
        return app

    @web.middleware
    async def _front_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked[f"{request.method} {'/'.join(request.path.split('/')[:3])}"] += 1
        self.paths[f"{request.method} {request.path}"] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.without and request.path.startswith(self.without):
                return Refused(404, f"Cannot {request.method} {request.path_qs}").answer()
            return await self._meddling.carry(request, handler)
        finally:
            self._at_once -= 1

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return refused.answer()
        except web.HTTPException as error:
            if error.status in (404, 405):
                return Refused(404, f"Cannot {request.method} {request.path_qs}").answer()
            raise

    def _guarded(self, handler: Callable[..., Awaitable[web.StreamResponse]]) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            name = request.match_info["name"]
            instance = self.instances.get(name)
            if instance is None:
                raise no_instance(name)
            self._key(request, instance)
            return await handler(instance, request)

        return guarded

    def _key(self, request: web.Request, instance: Instance | None = None) -> None:
        key = request.headers.get("apikey")
        if key != KEY and (instance is None or not key or key != instance.token):
            raise Refused(401)

    # routes

    async def _welcome(self, _request: web.Request) -> web.Response:
        body = {"status": 200, "message": "Welcome to the Evolution API, it is working!"}
        return web.json_response({**body, "version": self.version, "clientName": "evolution"})

    async def _list(self, request: web.Request) -> web.Response:
        key, name = request.headers.get("apikey"), request.query.get("instanceName")
        chosen = list(self.instances.values())
        if key != KEY:
            chosen = [each for each in chosen if key and each.token == key]
            if not chosen:
                raise Refused(401)
        if name:
            chosen = [each for each in chosen if each.name == name and each.state is not None]
            if not chosen:
                return self._none_listed(name)
        elif self.list_seconds:
            await asyncio.sleep(self.list_seconds)
        await self._ask_whatsapp_through_all()
        if not self.old:
            return web.json_response([row_body(each) for each in chosen])
        rows = [old_row_body(each) for each in chosen if each.state is not None]
        if name and not rows:  # it was unloaded meanwhile
            return self._none_listed(name)
        return web.json_response(rows[0] if name else rows)

    async def _ask_whatsapp_through_all(self) -> None:
        """1.8 does so for each list and before each creation, through every open session."""
        for _ in range(600):
            if not self.old or all(each.dead != "silent" for each in self.instances.values()):
                return
            await asyncio.sleep(self.times.silent_try / 10)

    def _none_listed(self, name: str) -> web.Response:
        words = f'Instance "{name}" not found'
        if not self.old:
            raise Refused(404, words)
        return web.json_response({"error": True, "message": [words]}, status=500)

    async def _create(self, request: web.Request) -> web.Response:
        told = await request.json()
        name = told.get("instanceName")
        if name in self.instances:
            raise Refused(403, f'This name "{name}" is already in use.')
        self._key(request)
        known = ("WHATSAPP-BAILEYS", "WHATSAPP-BUSINESS", "EVOLUTION")
        if not name or told.get("integration") not in known:
            raise Refused(400, "Invalid integration")
        await self._ask_whatsapp_through_all()
        made = self.add(name)
        made.settings["groupsIgnore"] = self.old
        made.token, made.number = told.get("token") or made.token, told.get("number")
        if told.get("proxyHost"):
            made.proxy = {"enabled": True} | {
                key: told.get(f"proxy{key.capitalize()}")
                for key in ("host", "port", "protocol", "username", "password")
            }
        shown = None
        if told.get("qrcode"):
            made.connect(made.number)
            await asyncio.sleep(self.times.create_wait)
            shown = made.shown()
        return web.json_response(created_body(made, old=self.old, shown=shown), status=201)

    async def _state(self, instance: Instance, _request: web.Request) -> web.Response:
        if instance.denied:
            instance.denied -= 1
            raise no_instance(instance.name)
        return web.json_response(state_body(instance))

    async def _connect(self, instance: Instance, request: web.Request) -> web.Response:
        match instance.state:
            case None:
                return web.Response() if self.old else swallowed()
            case "open":
                return web.json_response(state_body(instance))
            case "close":
                instance.asked_to_connect(request.query.get("number"))
                await asyncio.sleep(self.times.login)
                await asyncio.sleep(self.times.connect_wait * (2.5 if self.old else 1))
        return web.json_response(instance.shown())

    async def _restart(self, instance: Instance, _request: web.Request) -> web.Response:
        if self.old:
            if instance.state == "open":
                instance.restart()
                await asyncio.sleep(self.times.connect_wait)
            return web.json_response(state_body(instance))
        if instance.state not in ("open", "connecting"):
            return swallowed()
        # Answered at once, with what there was before it.
        body = state_body(instance) if instance.state == "open" else instance.shown()
        instance.restart()
        return web.json_response(body)

    async def _logout(self, instance: Instance, _request: web.Request) -> web.Response:
        if instance.state == "close":
            if not self.version.startswith("2.4"):
                raise Refused(400, f'The "{instance.name}" instance is not connected')
        else:
            # Answered before it is done.
            asyncio.get_running_loop().call_later(self.times.removal, instance.logout)
        body = {"status": "SUCCESS", "error": False}
        return web.json_response({**body, "response": {"message": "Instance logged out"}})

    async def _delete(self, instance: Instance, _request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_later(self.times.removal, self._remove, instance)
        body = {"status": "SUCCESS", "error": False}
        return web.json_response({**body, "response": {"message": "Instance deleted"}})

    def remove(self, name: str) -> None:
        """It is deleted over there."""
        self._remove(self.instances[name])

    def _remove(self, instance: Instance) -> None:
        goes_on = self.old and instance.creds and instance.state == "connecting"
        instance.unload()
        if self.instances.get(instance.name) is instance:
            del self.instances[instance.name]
        if goes_on and not instance.ghost:
            later = asyncio.get_running_loop().call_later
            later(self.times.silent_try, self._haunt, instance)

    def _haunt(self, instance: Instance) -> None:
        """1.8: its connection tries once more and writes its folder: the name is taken again."""
        instance.ghost = True
        self.instances.setdefault(instance.name, instance)

    async def _presence(self, instance: Instance, request: web.Request) -> web.Response:
        """Baileys reads the account's name first, and only then looks at its socket: one that still
        logs in takes the words, and where they come into its handshake, the login breaks."""
        told = await request.json()
        if not instance.logins:
            raise Refused(400, f"TypeError: {_UNDEFINED} (reading 'sendPresenceUpdate')")
        if not instance.creds:
            raise Refused(400, f"TypeError: {_UNDEFINED} (reading 'name')")
        if instance.state == "close" or (instance.state == "connecting" and instance.stuck):
            raise Refused(400, "Error: Connection Closed")
        instance.write()
        return web.json_response(
            None if self.old else {"presence": told.get("presence")}, status=201
        )

    async def _profile(self, instance: Instance, _request: web.Request) -> web.Response:
        instance.write()
        if instance.dead == "silent":
            await asyncio.sleep(60)
        if instance.dead or instance.state != "open":
            raise Refused(500, "Error updating profile name", "Error: Connection Closed")
        number = instance.wuid.split("@")[0]
        body = {"isBusiness": False, "message": "Not is business profile", "jid": instance.wuid}
        return web.json_response({**body, "exists": True, "number": number})

    async def _find_settings(self, instance: Instance, _request: web.Request) -> web.Response:
        return web.json_response(settings_body(instance, old=self.old))

    async def _set_settings(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        names = OLD_SETTINGS if self.old else {name: name for name in instance.settings}
        wanted = [key for key, name in names.items() if name != "msgCall"]
        if lacking := [key for key in wanted if not isinstance(told.get(key), bool)]:
            raise Refused(400, [f'instance requires property "{key}"' for key in lacking])
        if self.old and "wavoipToken" not in told:
            raise Refused(400, ['instance requires property "wavoipToken"'])
        if not isinstance(told.get("wavoipToken", ""), str):
            raise Refused(400, ["wavoipToken is not of a type(s) string"])
        instance.settings |= {name: told[key] for key, name in names.items() if key in told}
        instance.wavoip = told.get("wavoipToken", instance.wavoip)
        if instance.wavoip:  # the server closes its socket and opens it
            instance.write()
        body = {"settings": {"instanceName": instance.name, "settings": told}}
        return web.json_response(body, status=201)

    async def _find_proxy(self, instance: Instance, _request: web.Request) -> web.Response:
        if not self.old:
            return web.json_response(instance.proxy)
        enabled = instance.proxy is not None and instance.proxy["enabled"]
        return web.json_response({"enabled": enabled, "proxy": instance.proxy})

    async def _find_webhook(self, instance: Instance, _request: web.Request) -> web.Response:
        if instance.webhook is None and self.old:
            return web.json_response({})
        return web.json_response(instance.webhook)

    async def _set_webhook(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        if self.old:
            if not isinstance(told.get("url"), str) or not isinstance(told.get("events"), list):
                raise Refused(400, ['instance requires property "url"'])
            if "://" not in told["url"]:
                raise Refused(400, 'Invalid "url" property')
            if "STATUS_INSTANCE" in told["events"]:
                raise Refused(400, ["events[5] is not one of enum values"])
            instance.webhook = {**told, "enabled": told.get("enabled", True)}
            return web.json_response({"webhook": instance.webhook}, status=201)
        inner = told.get("webhook")
        if not isinstance(inner, dict) or "enabled" not in inner or "url" not in inner:
            raise Refused(400, ['instance requires property "webhook"'])
        instance.webhook = {
            "id": uuid.uuid4().hex,
            "url": inner["url"],
            "headers": inner.get("headers"),
            "enabled": inner["enabled"],
            "events": inner.get("events", []),
            "webhookByEvents": inner.get("byEvents", False),
            "webhookBase64": inner.get("base64", False),
        }
        return web.json_response(instance.webhook, status=201)
