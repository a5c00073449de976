"""Which process of this machine uses a file or folder: a session in use is not moved."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SERVERS = ("node", "bun", "deno")


def user_of_file(path: Path) -> str:
    """The process that has the file open; "" when none (or none that we may see)."""
    wanted = path.resolve().stat()
    for process in _processes():
        for opened in _opened(process):
            if (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino):
                return _named(process)
    return ""


def user_of_folder(folder: Path) -> str:
    """The Node program that runs above this folder or holds one of its files open.

    A Baileys bot opens each key only while it reads or writes it. Its working directory tells, for
    the folder of keys lies below it, or its command line, which names the folder.
    """
    folder = folder.resolve()
    for process in _processes():
        if Path(_link(process / "exe")).name.startswith(_SERVERS):
            cwd = _link(process / "cwd")
            inside = cwd not in ("", "/") and folder.is_relative_to(cwd)
            if inside or _is_named_by(process, folder):
                return _named(process)
        if any(_link(opened).startswith(f"{folder}/") for opened in _descriptors(process)):
            return _named(process)
    return ""


def _processes() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            yield process


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []  # gone, or another user's


def _opened(process: Path) -> Iterator[os.stat_result]:
    for descriptor in _descriptors(process):
        with suppress(OSError):
            yield descriptor.stat()


def _is_named_by(process: Path, folder: Path) -> bool:
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return any(os.fsencode(path) in line for path in (folder, folder.parent) if len(path.parts) > 2)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _named(process: Path) -> str:
    try:
        name = (process / "comm").read_text().strip()
    except OSError:
        name = "a process"
    return f"{name} (process {process.name})"
