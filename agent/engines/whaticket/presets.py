"""The kinds of servers that are known. In every public one `disconnect` logs out at WhatsApp."""

from collections.abc import Mapping
from dataclasses import replace

from agent.engines.whaticket.contract import Contract, Route

_COMMUNITY = Contract(
    list=Route("GET", "/whatsapp/"),
    state=Route("GET", "/whatsapp/{id}"),
    start=Route("POST", "/whatsappsession/{id}"),
    disconnect=Route("DELETE", "/whatsappsession/{id}"),
    new_qr=Route("PUT", "/whatsappsession/{id}"),
    logout=Route("DELETE", "/whatsappsession/{id}"),
    create=Route("POST", "/whatsapp/"),
    send=Route("POST", "/api/messages/send"),
)

PRESETS: Mapping[str, Contract] = {
    "spec": replace(
        _COMMUNITY,
        start=Route("PUT", "/whatsapp/{id}/start-session"),
        disconnect=Route("PUT", "/whatsapp/{id}/disconnect"),
        disconnect_keeps_pairing=True,
    ),
    "community": _COMMUNITY,
    "saas": _COMMUNITY,
    "ticketz": replace(_COMMUNITY, restart=Route("GET", "/whatsappsession/refresh/{id}")),
}
