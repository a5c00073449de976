"""Sessions on a whaticket-like server: Baileys behind a REST interface, its logs and its keys.

Such a server has no request that asks WhatsApp through a session without sending a message: that
a session is connected rests on the server's word, on its logs, and on nothing else.
"""
