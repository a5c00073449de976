"""The keys of `wa-agent top`: they scroll the list and type its filter. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Scroll:
    """The first row that is shown, and the filter."""

    first: int = 0
    """The row at the top."""
    filter: str = ""
    typing: bool = False
    page: int = 1
    """Rows in the last frame."""

    def press(self, key: bytes) -> bool:
        """Act on one key; False for a key without a meaning here."""
        if self.typing:
            return self._type(key)
        moves = {b"j": 1, b"\x1b[B": 1, b"k": -1, b"\x1b[A": -1}
        pages = {b"\x1b[6~": 1, b"\x1b[5~": -1}
        if key in moves:
            self.first += moves[key]
        elif key in pages:
            self.first += pages[key] * max(self.page - 1, 1)
        elif key in (b"g", b"\x1b[H"):
            self.first = 0
        elif key in (b"G", b"\x1b[F"):
            self.first = 1 << 30  # the frame cuts it to what there is
        elif key == b"/":
            self.typing, self.filter = True, ""
        elif key == b"\x1b" and self.filter:
            self.filter, self.first = "", 0
        else:
            return False
        return True

    def _type(self, key: bytes) -> bool:
        if key in (b"\r", b"\n"):
            self.typing = False
        elif key == b"\x1b":
            self.typing, self.filter = False, ""
        elif key in (b"\x7f", b"\x08"):
            self.filter = self.filter[:-1]
        elif len(key) == 1 and 32 <= key[0] < 127 and len(self.filter) < 60:
            self.filter += key.decode()
        self.first = 0
        return True
