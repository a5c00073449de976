"""What stands around supervision: messages, webhooks, troubles, metrics, and the HTTP interface."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts as ApiParts
from agent.api.server import Server, serve
from agent.config.config import Config
from agent.daemon.troubles import Troubles
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.metrics.family import Family
from agent.moving.archives import Archives
from agent.supervise.assemble import Supervision, Supervisor
from agent.supervise.requests.calls import Workers
from agent.webhooks.part import Webhooks


@dataclass(frozen=True, slots=True)
class Parts:
    supervision: Supervision
    supervisor: Supervisor
    reader: Reader
    sending: Sending
    webhooks: Webhooks
    troubles: Troubles
    server: Server


async def open_parts(
    config: Config,
    supervision: Supervision,
    supervisor: Supervisor,
    places: Mapping[str, str],
    *,
    reload: Callable[[], None],
) -> Parts:
    store, bus = supervision.ground.store, supervision.ground.bus
    reader = Reader(Workers(supervision.registry, supervision.root))
    supervision.on_kept.append(reader.changed)
    supervision.on_forget.append(reader.forget)
    sending = Sending(config.agent.state_path, supervisor, store, bus, reader)
    sending.take_on(config)
    webhooks = Webhooks(config, (store, bus, reader, supervisor.views))

    def families() -> Iterator[Family]:
        yield from sending.families(supervisor.views())
        yield from troubles.families()
        yield from webhooks.families()

    exporter = Exporter(
        supervisor.views,
        supervisor.status,
        config.agent.state_path,
        backends=supervisor.backends.views,
        more=families,
    )
    troubles = Troubles(
        lambda: supervision.settings.config,
        supervisor.views,
        supervisor.status,
        exporter,
        store,
        reader,
        sending,
        webhooks.oldest_wall,
    )
    for_handlers = ApiParts(
        config.api,
        supervisor,
        await KeyRing.open(store),
        exporter,
        reader,
        sending,
        webhooks,
        Archives(supervision),
        troubles.present,
        store.check,
        supervision.sampler,
        places,
        supervision.root,
        supervision.seats.log_path,
        reload,
    )
    listen = await supervision.ground.host.missing_address()
    server = await serve(for_handlers, socket_path=config.api_socket, listen=listen)
    return Parts(supervision, supervisor, reader, sending, webhooks, troubles, server)
