"""How the versions write what they answer."""

from typing import Any

from aiohttp import web

from tests.standin.evolution.instances import Instance

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    500: "Internal Server Error",
}
OLD_SETTINGS = {
    "reject_call": "rejectCall",
    "msg_call": "msgCall",
    "groups_ignore": "groupsIgnore",
    "always_online": "alwaysOnline",
    "read_messages": "readMessages",
    "read_status": "readStatus",
    "sync_full_history": "syncFullHistory",
}


class Refused(Exception):
    def __init__(self, status: int, *message: Any) -> None:
        super().__init__(status)
        self.status = status
        self.message: Any = list(message)
        if status == 401:
            self.message = "Unauthorized"

    def answer(self) -> web.Response:
        body = {"status": self.status, "error": TITLES[self.status]}
        return web.json_response(
            {**body, "response": {"message": self.message}}, status=self.status
        )


def no_instance(name: str) -> Refused:
    return Refused(404, f'The "{name}" instance does not exist')


def swallowed() -> web.Response:
    """`connect` and `restart` of 2.x catch what they throw."""
    return web.json_response({"error": True, "message": "[object Object]"})


def state_body(instance: Instance) -> dict[str, Any]:
    inner = {"instanceName": instance.name}
    if instance.state is not None:
        inner["state"] = instance.state
    return {"instance": inner}


def row_body(instance: Instance) -> dict[str, Any]:
    row = instance.row
    return {
        "id": instance.id,
        "name": instance.name,
        "connectionStatus": row.connectionStatus,
        "ownerJid": row.ownerJid,
        "profileName": "Stand-in" if row.ownerJid else None,
        "profilePicUrl": None,
        "integration": instance.integration,
        "number": instance.number,
        "businessId": None,
        "token": instance.token,
        "clientName": "evolution_exchange",
        "disconnectionReasonCode": row.disconnectionReasonCode,
        "disconnectionObject": row.disconnectionObject,
        "disconnectionAt": row.disconnectionAt,
        "createdAt": row.createdAt,
        "updatedAt": row.updatedAt,
        "Chatwoot": None,
        "Proxy": instance.proxy,
        "Rabbitmq": None,
        "Nats": None,
        "Sqs": None,
        "Websocket": None,
        "Setting": {**settings_body(instance, old=False), "instanceId": instance.id},
        "_count": {"Message": 0, "Contact": 0, "Chat": 0},
    }


def old_row_body(instance: Instance) -> dict[str, Any]:
    inner: dict[str, Any] = {"instanceName": instance.name, "instanceId": instance.id}
    if instance.state == "open":
        inner |= {"owner": instance.wuid, "profileName": "not loaded", "profileStatus": ""}
    inner |= {"status": instance.state, "serverUrl": "localhost", "apikey": instance.token}
    hook = f"localhost/webhook/whatsapp/{instance.name}"
    inner["integration"] = {"integration": instance.integration, "webhook_wa_business": hook}
    return {"instance": inner}


def created_body(instance: Instance, *, old: bool, shown: Any) -> dict[str, Any]:
    inner = {"instanceName": instance.name, "instanceId": instance.id}
    inner |= {"integration": instance.integration, "status": "created" if old else instance.state}
    inner |= (
        {"webhook_wa_business": None, "access_token_wa_business": ""}
        if old
        else {"webhookWaBusiness": None, "accessTokenWaBusiness": ""}
    )
    body: dict[str, Any] = {"instance": inner, "settings": settings_body(instance, old=old)}
    body |= {"hash": {"apikey": instance.token} if old else instance.token}
    body |= {"webhook": {}, "websocket": {}, "rabbitmq": {}, "sqs": {}}
    body |= {"typebot": {"enabled": False}} if old else {"nats": {}}
    if shown is not None:
        body["qrcode"] = shown
    return body


def settings_body(instance: Instance, *, old: bool) -> dict[str, Any]:
    told = instance.settings
    if old:
        told = {key: instance.settings[name] for key, name in OLD_SETTINGS.items()}
    return {**told, "wavoipToken": instance.wavoip}
