"""What senders need of the agent's supervisor."""

from agent.daemon.wing_parts import Around


class Sessions:
    def __init__(self, around: Around) -> None:
        self.view = around.supervisor.view
        self.send = around.supervisor.asking.send
        self.find = around.supervisor.moments.find
        self.ask_sent = around.supervisor.asking.ask_sent
