"""What each session on a server answers alike: nothing of it is on this machine."""


class RemoteSession:
    async def free_memory(self) -> None:
        """The session is in its server's memory."""

    async def prepare_stop(self) -> None:
        """The session goes on at its server."""

    async def save(self) -> None:
        """Its server saves it."""
