"""Is there a session, and is it whole? Looks at files only; changes nothing, ever.

The rules of each engine's files are repeated here as data: the vault imports no engine.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, SessionFiles
from agent.errors import InvalidRequest, VaultError
from agent.vault.atomic import read_plain_file
from agent.vault.locate import SESSION, is_empty, open_folder, open_instance


@dataclass(frozen=True, slots=True)
class FilesReport:
    files: SessionFiles
    problem: str = ""
    """What is wrong and where, for people."""


Check = Callable[[Path, int], FilesReport]
"""Gets the engine's folder, its path and open."""


def check_files(folder: Path, engine: str) -> SessionFiles:
    return inspect_files(folder, engine).files


def inspect_files(folder: Path, engine: str) -> FilesReport:
    """Never raises: files that cannot be read are a finding, with path and owner."""
    path = folder / SESSION
    try:
        with open_instance(folder.parent, InstanceId(folder.name)) as fd:
            if is_empty(path, SESSION, fd):
                return FilesReport(SessionFiles.UNPAIRED)
            with open_folder(path, SESSION, fd) as session_fd:
                return CHECKS.get(engine, _check_present)(path, session_fd)
    except (VaultError, InvalidRequest) as error:
        if error.code == "absent":
            return FilesReport(SessionFiles.ABSENT, str(error))
        return FilesReport(SessionFiles.DAMAGED, str(error))


def _check_sandbox(path: Path, session_fd: int) -> FilesReport:
    name = "sandbox.json"
    try:
        raw = read_plain_file(path, session_fd, name)
    except VaultError as error:
        if error.code != "absent":
            raise
        return FilesReport(SessionFiles.UNPAIRED)
    try:
        content = json.loads(raw)
        rest = {key: value for key, value in content.items() if key != "checksum"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        whole = hashlib.sha256(text.encode()).hexdigest() == content["checksum"]
        paired = content["paired"] is True
        known = content["version"] == 1
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        return _damaged(path / name, f"it is no session file ({error})")
    if not whole:
        return _damaged(path / name, "its checksum does not fit its content")
    if not known:
        return _damaged(path / name, f"its version is {content['version']!r:.40}, not 1")
    return FilesReport(SessionFiles.WHOLE if paired else SessionFiles.UNPAIRED)


def _check_present(path: Path, session_fd: int) -> FilesReport:
    """For an engine whose files we have no rule for: something is there."""
    return FilesReport(SessionFiles.WHOLE)


def _damaged(path: Path, cause: str) -> FilesReport:
    return FilesReport(SessionFiles.DAMAGED, f"cannot use {path}: {cause}")


CHECKS: Mapping[str, Check] = {"sandbox": _check_sandbox}
