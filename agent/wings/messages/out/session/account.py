"""Which account the messages of a session are for: what one account accepted, another one of the
same session does not send."""

from collections.abc import Awaitable, Callable

from agent.core.model import ConnectionStatus, InstanceId
from agent.core.view import InstanceView
from agent.wings.messages.out.message import chat_of
from agent.wings.messages.out.session.ledger import Ledger


class AccountGuard:
    def __init__(self, id: InstanceId, ledger: Ledger) -> None:
        self._id = id
        self._ledger = ledger
        self._account = ""
        """Whose messages these are; "" = not looked at yet."""

    async def check(self, view: InstanceView, fail: Callable[[float], Awaitable[None]]) -> None:
        """`fail` gets when its instance was made, where another account accepted what waits.
        StoreError: nobody knows whose messages these are."""
        account, born = account_of(view), view.instance.created_wall
        if not account or account == self._account:
            return
        known = await self._ledger.account(self._id, born)
        if known and known != account:
            if view.status is not ConnectionStatus.CONNECTED:
                return
            await fail(born)
        if known != account:
            await self._ledger.put_account(self._id, born, account)
        self._account = account


def account_of(view: InstanceView) -> str:
    """Its number, however its engine writes it; "" = it is paired with none, or none is told. While
    it is not connected, that of its record: a server may show another's session in its place."""
    claim = view.claim.claim if view.claim is not None else None
    connected = view.status is ConnectionStatus.CONNECTED
    told = claim.account if claim is not None and claim.paired and connected else ""
    account = told or view.record.account
    return chat_of(account) if account else ""
