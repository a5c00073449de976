"""The earlier message that one to send is about: replied to, reacted to, edited, deleted. Its id at
WhatsApp and who wrote it, as far as that is known here."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.supervise.messages.moments import ME
from agent.wings.messages.out.message import chat_of
from agent.wings.messages.out.store import OutboxStore

OWN_ID = "out_"
"""How the outbox's ids begin."""
CHANGES = ("reaction", "delete")
"""They have the id of the message that they are about, on engines that give them none."""
NOT_FOUND = "message_not_found"

Find = Callable[[InstanceId, str, Sequence[str]], Awaitable[Mapping[str, Mapping[str, Any]]]]


async def complete(
    id: InstanceId, message: Mapping[str, Any], store: OutboxStore, find: Find
) -> Mapping[str, Any]:
    """The message with what an engine needs of the one it is about; one about none as it is."""
    its, writer = _fields_of(message)
    if not its:
        return message
    whole, chat = dict(message), chat_of(str(message["to"]))
    row = await store.find(id, whole[its])
    if row is not None and row.chat == chat and row.state.left and row.type not in CHANGES:
        whole[its] = row.message_id
        whole.setdefault(writer, ME)
    elif whole[its].startswith(OWN_ID):
        raise Refused(
            f"cannot send: {whole[its]!r:.80} is no message that was sent to this chat",
            field=its,
            code=NOT_FOUND,
        )
    if message["type"] == "edit" or (writer in whole and its != "quote"):
        return whole
    jid = chat if "@" in chat else f"{chat}@s.whatsapp.net"
    found = (await find(id, jid, [whole[its]])).get(whole[its])
    if found is not None:
        whole.setdefault(writer, ME if found.get("from_me") else str(found.get("sender", "")))
        if its == "quote":
            whole |= {"quote_text": found.get("text", ""), "quote_type": found.get("type", "")}
    if message["type"] == "delete":
        whole.setdefault(writer, ME)
    return whole


def _fields_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """The field that names the other message, and the one of who wrote that."""
    if message["type"] in ("edit", "delete", "reaction"):
        return "message_id", "sender"
    return ("quote", "quote_from") if "quote" in message else ("", "")
