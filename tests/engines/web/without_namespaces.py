"""Run a program as in a container whose filter forbids new user namespaces: ... PROGRAM ARGS."""

import ctypes
import os
import struct
import sys

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_CLONE_NEWUSER, _CLONE, _UNSHARE = 0x10000000, 56, 272
_LOAD, _IS, _HAS, _RETURN = 0x20, 0x15, 0x45, 0x06


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("rows", ctypes.c_void_p))


def forbid() -> None:
    """unshare() always, clone() with CLONE_NEWUSER: EPERM (x86-64)."""
    rows = (
        (_LOAD, 0, 0, 0),
        (_IS, 4, 0, _UNSHARE),
        (_IS, 0, 2, _CLONE),
        (_LOAD, 0, 0, 16),
        (_HAS, 1, 0, _CLONE_NEWUSER),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = _Program(len(rows), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid()
    os.execv(sys.argv[1], sys.argv[1:])
