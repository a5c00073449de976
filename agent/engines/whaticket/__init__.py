"""Sessions on a whaticket-like server: Baileys behind a REST interface, its logs and its keys.

Such a server has no request that asks WhatsApp without sending a message: only the server's word
and its logs say that a session is connected.
"""
