"""What stands around supervision: metrics, the wings, and the HTTP interface over all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.api.assemble import serve
from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts as ApiParts
from agent.api.http.idempotency import IdempotentAnswers
from agent.api.server import Server
from agent.config import Config
from agent.daemon.wing_parts import Around, WingPart, open_outbox, open_wing_parts
from agent.metrics.exporter import Exporter
from agent.supervise.assemble import Supervision
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
        supervision.messages,
        supervisor,
        exporter,
        in_force=lambda: supervision.settings.config,
        figures=lambda: {name: part.figures() for name, part in of_wings.items()},
        log_path=supervision.seats.log_path,
    )
    outbox = open_outbox(around)
    of_wings |= open_wing_parts(around)
    if outbox is not None:
        of_wings["outbox"] = outbox
    for_handlers = ApiParts(
        config.api,
        supervisor,
        await KeyRing.open(store),
        exporter,
        IdempotentAnswers(store),
        store.check,
        supervision.sampler,
        places,
        reload,
        of_wings={type(part): part for part in of_wings.values()},
        outbox=outbox,
    )
    server = await serve(
        for_handlers,
        socket_path=config.api_socket,
        listen=await ground.host.missing_address(),
    )
    return Parts(supervision, supervisor, of_wings, server)
