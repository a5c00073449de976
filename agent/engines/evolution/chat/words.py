"""The server's words for what became of a message."""

ACKS = {
    "PENDING": "clock",
    "SERVER_ACK": "server",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "played",
}
