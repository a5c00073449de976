"""The fault of the front changes requests and answers on their way."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.standin.evolution.faults import Front
from tests.standin.evolution.shapes import TITLES, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Meddling:
    def __init__(self, front: Front) -> None:
        self._front = front
        self._first: dict[str, bytes] = {}
        """The first answer to each request."""

    async def carry(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._front.only not in request.path:
            return self._packed(await handler(request))
        answer = await self._instead(request)
        return self._packed(answer or await self._spoiled(request, await handler(request)))

    def _packed(self, answer: web.StreamResponse) -> web.StreamResponse:
        if not self._front.packs or not isinstance(answer, web.Response) or not answer.body:
            return answer
        if not isinstance(answer.body, bytes):
            return answer
        headers = {"Content-Encoding": "gzip", "Content-Type": answer.content_type}
        return web.Response(status=answer.status, body=gzip.compress(answer.body), headers=headers)

    async def _spoiled(
        self, request: web.Request, answer: web.StreamResponse
    ) -> web.StreamResponse:
        """Return another answer than the server's, whose act stays done."""
        if not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
            return answer
        earlier = self._first.setdefault(f"{request.method} {request.path}", answer.body)
        match self._front.fault:
            case "empty":
                return web.json_response({})
            case "earlier":
                return web.Response(body=earlier, content_type="application/json")
            case "lost":
                return web.Response(status=502, text="<html>Bad Gateway</html>")
            case "half":
                half = web.StreamResponse(status=answer.status)
                half.content_type, half.content_length = "application/json", len(answer.body)
                await half.prepare(request)
                await half.write(answer.body[: len(answer.body) // 2])
                if request.transport is not None:
                    request.transport.close()
                return half
        return answer

    async def _instead(self, request: web.Request) -> web.StreamResponse | None:
        match self._front.fault:
            case "echo":
                return await self._echo(request)
            case "slow":
                await asyncio.sleep(self._front.late)
            case "html":
                return web.Response(text="<html>Welcome to nginx!</html>", content_type="text/html")
            case "refused":
                return Refused(400, ['instance requires property "new"']).answer()
            case "failing":
                return web.Response(status=502, text="<html>Bad Gateway</html>")
            case "licence":
                return web.json_response(
                    {
                        "error": "service not activated",
                        "code": "LICENSE_REQUIRED",
                        "register_url": "https://license.example/?id=1",
                        "instance_id": "1",
                        "docs_url": "https://docs.example",
                        "message": "This service needs a license",
                    },
                    status=503,
                )
        return None

    async def _echo(self, request: web.Request) -> web.Response:
        """A refusal that repeats what it was asked, with the key."""
        told = await request.text()
        parts = [request.path_qs, f"apikey {request.headers.get('apikey')}", told]
        self._front.chance.shuffle(parts)
        words = f"cannot {' '.join(parts)}"
        if self._front.status < 400:
            return web.json_response({"error": True, "message": words}, status=self._front.status)
        if self._front.status not in TITLES:
            return web.json_response({"message": words}, status=self._front.status)
        return Refused(self._front.status, [words]).answer()
