"""The public face of supervision: all that the API may ask, by the part that answers."""

from agent.supervise.assemble import Supervision
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.deletion import Deletion
from agent.supervise.requests.orders import Orders
from agent.supervise.requests.repairs import Checking, Repairs
from agent.supervise.requests.set_up import SettingUp

CHECKS_AT_ONCE = 64


class Supervisor:
    """Unknown ids raise NotFound."""

    def __init__(self, base: Supervision) -> None:
        registry, store, host, wake = base.registry, base.ground.store, base.ground.host, base.wake
        self.view, self.views = registry.view, registry.views
        self.status, self.history = base.figures.status, store.history
        self.bus, self.trends = base.ground.bus, base.trends
        self.keeping, self.creation = base.keeping, base.creation
        self.backends = base.backends
        self.asking = Calls(registry, store, wake)
        self.send, self.find = self.asking.send, self.asking.find
        self.checking = Checking(registry, base.passes, wake, at_once=CHECKS_AT_ONCE)
        self.orders = Orders(registry, base.seats, base.gate, self.asking, wake)
        self.repairs = Repairs(
            registry=registry,
            host=host,
            ladder=base.ladder,
            incidents=base.incidents,
            checking=self.checking,
            wake=wake,
        )
        self.deletion = Deletion(
            registry=registry,
            store=store,
            host=base.seats,
            session_root=base.root,
            wake=wake,
            forget=base.forget,
            let_go=base.backends.let_go,
        )
        self.setting_up = SettingUp(
            repairs=self.repairs,
            registry=registry,
            host=host,
            asking=self.asking,
            create=base.creation.create,
            enable=self.orders.enable,
        )
