"""Sessions on a whaticket-like server: Baileys behind a REST interface, its logs and its keys.

Nothing that such a server offers asks WhatsApp itself through a session without sending
something: that one is connected rests on the server's word, on its logs, and on nothing else.
"""

from agent.engines.whaticket.backend import open_backend

__all__ = ["open_backend"]
