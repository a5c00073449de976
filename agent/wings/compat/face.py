"""The paths, the key and the errors that clients of Evolution API 2.3 expect. Each path is one of
ours in another form: the same rights, limits and handlers."""

from http import HTTPStatus
from typing import Any

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Handler, Json, Parts, Route
from agent.api.http.envelope import json_answer
from agent.core.model import ID_PATTERN
from agent.errors import Forbidden, NotFound, Unauthorized, WaError
from agent.wings.compat import chats, files, instances, sending
from agent.wings.compat.fields import Malformed
from agent.wings.compat.part import CompatPart

ID = f"{{id:{ID_PATTERN}}}"
AREAS = "instance|message|chat|group|webhook|settings|label|call|proxy|business|template"
_AS_BAD_REQUEST = 409
"""Their server knows no state that forbids a request: it answers 400."""


class EvolutionFace:
    key_header = "apikey"

    def is_on(self, parts: Parts) -> bool:
        part: CompatPart | None = parts.of_wings.get(CompatPart)
        return part is not None and part.settings.evolution

    def show_error(self, request: web.Request, error: WaError) -> web.Response:
        message: Any = _message(error, request.match_info.get("id", ""))
        status = error.http
        if isinstance(error, Unauthorized | Forbidden):
            status, message = 401, "Unauthorized"
        status = 400 if status == _AS_BAD_REQUEST else status
        content = {
            "status": status,
            "error": HTTPStatus(status).phrase,
            "response": {"message": message},
        }
        return json_answer(content, status)


def _message(error: WaError, name: str) -> list[Any]:
    if isinstance(error, Malformed):
        return [list(error.faults)]
    if isinstance(error, NotFound) and error.code == "not_found" and name:
        return [f'The "{name}" instance does not exist']
    return [str(error)]


EVOLUTION = EvolutionFace()


async def unknown(call: Call) -> Json:
    request = call.request
    raise NotFound(f"Cannot {request.method} {request.rel_url.raw_path}", code="unknown_route")


def _row(method: str, path: str, run: Handler, summary: str, status: int = 201) -> Route:
    return Route(
        method, f"{path}/{ID}", Right.OPERATE, run, summary, answers=(status,), face=EVOLUTION
    )


ROUTES = (
    Route(
        "GET",
        "/instance/fetchInstances",
        Right.SOME,
        instances.fetch,
        "The instances",
        query=instances.FETCH,
        face=EVOLUTION,
    ),
    Route(
        "GET",
        f"/instance/connectionState/{ID}",
        Right.READ,
        instances.state,
        "open, connecting or close",
        face=EVOLUTION,
    ),
    Route(
        "GET",
        f"/instance/connect/{ID}",
        Right.OPERATE,
        instances.connect,
        "Start it; the code to scan",
        query=instances.CONNECT,
        face=EVOLUTION,
    ),
    _row("POST", "/instance/restart", instances.restart, "Restart it", 200),
    _row("POST", "/message/sendText", sending.send_text, "Send a text"),
    _row("POST", "/message/sendMedia", sending.send_media, "Send a file"),
    _row("POST", "/message/sendWhatsAppAudio", sending.send_audio, "Send a voice message"),
    _row("POST", "/message/sendLocation", sending.send_location, "Send a place"),
    _row("POST", "/message/sendContact", sending.send_contact, "Send a contact"),
    _row("POST", "/message/sendReaction", sending.send_reaction, "React to a message"),
    _row("POST", "/chat/updateMessage", sending.edit, "Change a message's text", 200),
    _row("DELETE", "/chat/deleteMessageForEveryone", sending.delete, "Take a message back"),
    _row("POST", "/chat/markMessageAsRead", chats.mark_read, "Mark messages as read"),
    _row("POST", "/chat/sendPresence", chats.presence, "Show that the account types"),
    _row("POST", "/chat/getBase64FromMediaMessage", files.give, "The file of a message"),
    _row("POST", "/chat/findMessages", chats.find, "Messages that are kept", 200),
    *(
        Route(
            method,
            f"/{{area:{AREAS}}}/{{rest:.+}}",
            Right.OPEN,
            unknown,
            "What this agent cannot do",
            face=EVOLUTION,
        )
        for method in ("GET", "POST", "PUT", "DELETE")
    ),
)
