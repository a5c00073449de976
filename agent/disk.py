"""Does a file system take writes? Asked of itself: the flags of its mount do not always tell."""

import errno
import os
from pathlib import Path


def refuses_writes(folder: Path) -> bool:
    """Whether it is read-only, or stopped all writes after an error.

    ext4 leaves the flags of the mount as they are when it stops (Linux 6.12, 6.1.113), so a file
    without a name is asked for, and gone again. What else refuses it (rights, a file system that
    has no such files) is not told here.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False
