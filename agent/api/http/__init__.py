"""The HTTP layer below the handlers: connections, bodies, rights, answers, OpenAPI."""
