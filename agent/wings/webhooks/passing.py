"""Posts what is kept nowhere, such as a code to scan: once, in another program's form."""

import asyncio
import logging
import secrets
from fnmatch import fnmatchcase

from agent.core.model import InstanceId
from agent.daemon.wing_parts import EventFormat
from agent.wings.webhooks.courier import AFTER_FAULT
from agent.wings.webhooks.settings import gets_messages_of
from agent.wings.webhooks.target import Target
from agent.wings.webhooks.webhook import Webhook

log = logging.getLogger(__name__)


class PassingPoster:
    def __init__(self, webhook: Webhook, form: EventFormat) -> None:
        self._declared = webhook.declared
        self._form = form
        self._target = Target(webhook)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async for posting in self._form.passing(self._wants, self._declared.url):
                    await self._target.send_posting(posting, secrets.token_hex(8))
                    await self._target.close()  # the next one is seconds away
            except Exception:
                log.exception("webhook %s: internal error; it starts again", self._declared.name)
            finally:
                await self._target.close()
            await asyncio.sleep(AFTER_FAULT)

    def _wants(self, id: InstanceId, kind: str) -> bool:
        named = any(fnmatchcase(kind, pattern) for pattern in self._declared.kinds)
        return named and gets_messages_of(self._declared, id)
