"""The stand-in's routes about messages, as harsh as the versions that were recorded: a reply to
what it does not have goes out as no reply, 1.8 takes no reaction back and knows no …@lid, and a
presence is answered when it is over."""

import asyncio
import base64
import binascii
import mimetypes
import re
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.standin.evolution.instances import Instance
from tests.standin.evolution.shapes import Refused, sent_body
from tests.standin.evolution.store import find

if TYPE_CHECKING:
    from tests.standin.evolution.server import StandIn


class ChatRoutes:
    def __init__(self, standin: "StandIn") -> None:
        self._standin = standin
        self.loses_answers = 0
        """So many sends are done, and their connections end without an answer."""
        self.fails = 0
        """So many sends are answered with 500, and not done."""
        self.files: dict[str, bytes] = {}
        """Of messages, by their id; what was sent, too."""
        self.largest = 1 << 25
        """Bytes of a body that it, or a proxy before it, takes."""

    def routes(self) -> list[tuple[str, str, Any]]:
        changes = "PUT" if self._standin.old else "POST"
        return [
            ("POST", "/message/sendText", self._send),
            ("POST", "/message/sendMedia", self._send),
            ("POST", "/message/sendWhatsAppAudio", self._send),
            ("POST", "/message/sendLocation", self._send),
            ("POST", "/message/sendContact", self._send),
            ("POST", "/message/sendReaction", self._react),
            (changes, "/chat/updateMessage", self._edit),
            ("DELETE", "/chat/deleteMessageForEveryone", self._delete),
            (changes, "/chat/markMessageAsRead", self._read),
            ("POST", "/chat/sendPresence", self._presence),
            ("POST", "/chat/findMessages", self._find),
            ("POST", "/chat/getBase64FromMediaMessage", self._media),
        ]

    async def _send(self, instance: Instance, request: web.Request) -> web.Response:
        if (request.content_length or 0) > self.largest:
            raise Refused(413, "request entity too large")
        told = await request.json()
        number = told.get("number")
        options = told.get("options", {}) if self._standin.old else told
        content = self._content(request.path.split("/")[2], told)
        if content is None or not isinstance(number, str):
            raise Refused(400, ['instance requires property "text"'])
        await self._through(instance)
        if number.startswith("999") or (self._standin.old and number.endswith("@lid")):
            jid = number if "@" in number else f"{number}@s.whatsapp.net"
            raise Refused(400, {"jid": jid, "exists": False, "number": number})
        body = sent_body(instance, number, content, "3EB0" + uuid.uuid4().hex[:16].upper())
        if (quoted := options.get("quoted")) is not None and quoted.get("message"):
            info = {"stanzaId": quoted["key"]["id"], "quotedMessage": quoted["message"]}
            body["contextInfo"] = info | {"participant": quoted["key"].get("remoteJid")}
        mentioned = options.get("mentions", {}).get("mentioned", options.get("mentioned"))
        if mentioned and body["key"]["remoteJid"].endswith("@g.us"):
            jids = [f"{one}@s.whatsapp.net" for one in mentioned]
            body["contextInfo"] = {**(body["contextInfo"] or {}), "mentionedJid": jids}
        if file := self._file(told):
            self.files[body["key"]["id"]] = file
        return self._done(instance, request, body)

    def _file(self, told: dict[str, Any]) -> bytes:
        told = told.get("mediaMessage") or told.get("audioMessage") or told
        file = str(told.get("media") or told.get("audio") or "")
        return b"" if file.startswith("http") else base64.b64decode(file)

    def _content(self, route: str, told: dict[str, Any]) -> dict[str, Any] | None:
        old = self._standin.old
        match route:
            case "sendText":
                text = (told.get("textMessage", {}) if old else told).get("text")
                return {"conversation": text} if isinstance(text, str) else None
            case "sendLocation":
                place = told.get("locationMessage", {}) if old else told
                if not old and not {"name", "address"} <= set(place):
                    return None
                if old and "" in place.values():
                    return None
                at = {"degreesLatitude": place["latitude"], "degreesLongitude": place["longitude"]}
                return {"locationMessage": {**at, "name": place.get("name")}}
            case "sendMedia":
                return self._media_content(told.get("mediaMessage", {}) if old else told)
            case "sendWhatsAppAudio":
                audio = (told["audioMessage"] if old else told)["audio"]
                options = told["options"] if old else told
                if options.get("encoding") is not False:
                    raise Refused(500, "no ffmpeg")
                _check_media(audio)
                return {"audioMessage": {"ptt": True, "mimetype": "audio/ogg; codecs=opus"}}
            case _:
                (card,) = told["contactMessage" if old else "contact"]
                return {"contactMessage": {"displayName": card["fullName"], "vcard": "BEGIN:VCARD"}}

    def _media_content(self, told: dict[str, Any]) -> dict[str, Any] | None:
        kind, media, name = told.get("mediatype"), told.get("media"), told.get("fileName")
        if kind not in ("image", "document", "video", "audio") or "" in told.values():
            return None
        if kind == "document" and not name and not str(media).startswith("http"):
            raise Refused(400, "For base64 the file name must be informed.")
        _check_media(media)
        mimetype = told.get("mimetype")
        if not self._standin.old:  # by the end of the name, whatever the caller said
            if kind == "image":
                name, mimetype = name or "image.jpg", "image/jpeg"
            if name:
                mimetype = mimetypes.guess_type(name)[0] or "false"
        part = {"mimetype": mimetype, "fileName": name, "caption": told.get("caption")}
        return {f"{kind}Message": part}

    async def _react(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        told = told["reactionMessage"] if self._standin.old else told
        if self._standin.old and not told["reaction"]:
            raise Refused(400, '"reaction" must be an emoji')
        await self._through(instance)
        content = {"reactionMessage": {"key": told["key"], "text": told["reaction"]}}
        id = "3EB0" + uuid.uuid4().hex[:16].upper()
        body = sent_body(instance, told["key"]["remoteJid"], content, id)
        return self._done(instance, request, body)

    async def _edit(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        await self._through(instance)
        row = self._row(instance, told["key"]["id"])
        if not self._standin.old:
            if row is None:
                raise Refused(400, "Message not compatible")
            if row["key"]["remoteJid"] != told["number"]:
                raise Refused(400, "BadRequestException: RemoteJid does not match")
        return self._changed(instance, told["key"], {"type": "MESSAGE_EDIT", "text": told["text"]})

    async def _delete(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        await self._through(instance)
        return self._changed(instance, told, {"type": "REVOKE"})

    async def _read(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        await self._through(instance)
        keys = told["read_messages" if self._standin.old else "readMessages"]
        people = (key for key in keys if key["remoteJid"].endswith(("@g.us", "@s.whatsapp.net")))
        instance.changes += [{"read": key["id"]} for key in people]
        return web.json_response({"message": "Read messages", "read": "success"}, status=201)

    async def _presence(self, instance: Instance, request: web.Request) -> web.Response:
        told = await request.json()
        shown = told["options"] if self._standin.old else told
        await self._through(instance)
        instance.changes.append({"presence": shown["presence"], "to": told["number"]})
        await asyncio.sleep(shown["delay"] / 1000)
        body = None if self._standin.old else {"presence": shown["presence"]}
        return web.json_response(body, status=201)

    async def _media(self, instance: Instance, request: web.Request) -> web.Response:
        key = (await request.json())["message"]["key"]
        row = self._row(instance, key["id"])
        if row is None or key["id"] not in self.files:
            raise Refused(400, "Message not found")
        content = base64.b64encode(self.files[key["id"]]).decode()
        return web.json_response({"mediaType": "imageMessage", "base64": content}, status=201)

    async def _find(self, instance: Instance, request: web.Request) -> web.Response:
        return web.json_response(find(instance, await request.json(), old=self._standin.old))

    async def _through(self, instance: Instance) -> None:
        instance.write()
        if instance.dead == "silent":
            await asyncio.sleep(60)
        if instance.dead or instance.state != "open":
            raise Refused(500, "Error: Connection Closed")
        if self.fails:
            self.fails -= 1
            raise Refused(500, "Internal Server Error")

    def _row(self, instance: Instance, id: str) -> dict[str, Any] | None:
        return next((row for row in instance.stored if row["key"]["id"] == id), None)

    def _changed(
        self, instance: Instance, key: dict[str, Any], how: dict[str, Any]
    ) -> web.Response:
        instance.changes.append({"key": key, **how})
        body = {"key": {**key, "fromMe": True, "id": "3EB0" + uuid.uuid4().hex[:16].upper()}}
        return web.json_response({**body, "status": "PENDING"}, status=201)

    def _done(self, instance: Instance, request: web.Request, body: dict[str, Any]) -> web.Response:
        instance.sent.append(body)
        instance.stored.append(body)
        self._standin.webhooks.tell(instance, "send.message", body)
        if self.loses_answers:
            self.loses_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(body, status=201)


def _check_media(media: Any) -> None:
    """An address needs a name with a dot; a loopback's own is none."""
    if re.match(r"https?://[\w-]+(\.[\w-]+)*\.[a-z]{2,}(/|$)", str(media)):
        return
    try:
        base64.b64decode(str(media), validate=True)
    except binascii.Error:
        raise Refused(400, "Owned media must be a url or base64") from None
