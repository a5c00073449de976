"""What stands around supervision: metrics, the wings, and the HTTP interface over all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.api.assemble import serve
from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts as ApiParts
from agent.api.server import Server
from agent.config.config import Config
from agent.daemon.wing_parts import Around, WingPart, open_wing_parts
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.moving.archives import Archives
from agent.supervise.assemble import Supervision
from agent.supervise.requests.calls import Workers
from agent.supervise.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Parts:
    supervision: Supervision
    supervisor: Supervisor
    of_wings: Mapping[str, WingPart]
    server: Server


async def open_parts(
    config: Config,
    supervision: Supervision,
    supervisor: Supervisor,
    places: Mapping[str, str],
    *,
    reload: Callable[[], None],
) -> Parts:
    ground, store = supervision.ground, supervision.ground.store
    of_wings: dict[str, WingPart] = {}
    reader = Reader(Workers(supervision.registry, supervision.root))
    supervision.on_kept.append(reader.changed)
    supervision.on_forget.append(reader.forget)
    sending = Sending(config.agent.state_path, supervisor, store, ground.bus, reader)
    exporter = Exporter(
        supervisor.views,
        supervisor.status,
        config.agent.state_path,
        backends=supervisor.backends.views,
        of_wings=lambda: (line for part in of_wings.values() for line in part.samples()),
    )
    around = Around(
        config,
        store,
        ground.bus,
        reader,
        sending,
        supervisor,
        exporter,
        in_force=lambda: supervision.settings.config,
        figures=lambda: {name: part.figures() for name, part in of_wings.items()},
        log_path=supervision.seats.log_path,
    )
    of_wings |= open_wing_parts(around)
    for_handlers = ApiParts(
        config.api,
        supervisor,
        await KeyRing.open(store),
        exporter,
        sending,
        store.check,
        supervision.sampler,
        places,
        reload,
        of_wings={type(it): it for it in (*of_wings.values(), Archives(supervision))},
    )
    listen = await ground.host.missing_address()
    server = await serve(for_handlers, socket_path=config.api_socket, listen=listen)
    return Parts(supervision, supervisor, of_wings, server)
