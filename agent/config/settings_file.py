"""Changes single keys of one table of agent.toml, or adds rows of an array of tables; every other
line stays."""

import fcntl
import json
import os
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.config.declaration import key_fault
from agent.config.load import load_config
from agent.config.secret_file import read_secret
from agent.errors import ConfigError, InvalidRequest, Refused, TryLater
from agent.files import write_whole

_TURN, _EVERY = 5.0, 0.05


def with_backend(text: str, values: Mapping[str, Any]) -> str:
    """The text with one more [[backend]]. ConfigError: it would change more."""
    keys = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return with_rows(text, "backend", [values], "\n".join(["[[backend]]", *keys, ""]))


def with_rows(text: str, table: str, rows: Sequence[Mapping[str, Any]], lines: str) -> str:
    """The text with more rows of [[table]], as `lines`. ConfigError: it would change more."""
    changed = "\n".join([*text.splitlines(), "", lines])
    try:
        wanted = tomllib.loads(text)
        wanted.setdefault(table, []).extend(dict(row) for row in rows)
        good = tomllib.loads(changed) == wanted
    except (tomllib.TOMLDecodeError, AttributeError):
        good = False
    if not good:
        raise ConfigError(
            f"cannot add a {table} to agent.toml: write each of its {table}s as a [[{table}]]",
            field=table,
        )
    return changed


def add_backend(path: Path, values: Mapping[str, Any], env: Mapping[str, str]) -> Path:
    """Returns the backup. The file stays as it is where the agent could not use the new one."""
    doing = f"cannot add backend {values.get('name', '')!r:.60} to {path}"
    _refuse_unusable_key(doing, values)
    cure = "a person who may write it adds it with `wa-agent backends add`"
    with _changing(path, env, doing, cure) as own, _key_apart(own, values) as table:
        before = own.read_bytes()
        changed = with_backend(before.decode("utf-8-sig"), table)
        return _put_checked(own, before, changed, env, doing)


def change_rows(
    path: Path, change: Callable[[str], str], env: Mapping[str, str], what: str
) -> Path:
    """Returns the backup. `change` gets the text and returns the new one; `what` is for errors."""
    doing, cure = f"cannot {what} {path}", "a person who may write it does so, with sudo for one"
    with _changing(path, env, doing, cure) as own:
        before = own.read_bytes()
        changed = change(before.decode("utf-8-sig"))
        return _put_checked(own, before, changed, env, doing)


@contextmanager
def _changing(path: Path, env: Mapping[str, str], doing: str, cure: str) -> Iterator[Path]:
    """Yields the settings file, not a link to it. The agent can use it as it is, and its lock keeps
    other writers out."""
    try:
        path = path.resolve(strict=True)
        with _alone(path):
            try:
                load_config(path, env)
            except ConfigError as error:
                advice = "correct the file first: wa-agent config check"
                raise Refused(f"{doing}: {error}; {advice}", code="config_wrong") from None
            yield path
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Refused(f"{doing}: {cause}; {cure}", code="config_not_writable") from error


def _put_checked(
    path: Path, before: bytes, changed: str, env: Mapping[str, str], doing: str
) -> Path:
    with candidate(path, changed) as new:
        try:
            load_config(new, env)
        except ConfigError as error:
            cause = str(error).replace(str(new), str(path))
            raise InvalidRequest(f"{doing}: {cause}", field=error.field) from None
        backup = _back_up(path, before)
        # An editor takes no lock of ours.
        if path.read_bytes() != before:
            raise TryLater(
                f"{doing}: somebody changed it meanwhile, and that change stays; give the command"
                " again",
                code="config_changed",
            )
        new.replace(path)
        return backup


def _refuse_unusable_key(doing: str, values: Mapping[str, Any]) -> None:
    """A file that only the agent may read is left to it."""
    if (key := values.get("key")) and (fault := key_fault(key)):
        raise InvalidRequest(f"{doing}: its key cannot be used: {fault}", field="key")
    try:
        if file := values.get("key_file"):
            read_secret(file, "key_file", "key_file", key_fault)
    except ConfigError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise InvalidRequest(f"{doing}: {error}", field="key_file") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One change at a time, by whatever process: each begins with what the one before wrote."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        for _ in range(int(_TURN / _EVERY)):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_EVERY)
        else:
            raise TryLater(f"cannot change {path}: another program does", code="config_in_use")
        yield


@contextmanager
def _key_apart(path: Path, values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The table with its key in a file of its own: others may read agent.toml and its backups."""
    if not (key := values.get("key")):
        yield values
        return
    file = path.absolute().with_name(f"{values['name']}.{os.urandom(4).hex()}.key")
    write_whole(file, f"{key}\n".encode(), mode=0o600)
    try:
        yield {name: value for name, value in values.items() if name != "key"} | {
            "key_file": str(file)
        }
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise


@contextmanager
def candidate(path: Path, text: str) -> Iterator[Path]:
    """The new text in a file beside `path`, readable as that one; it is removed at the end."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    status = path.stat()
    write_whole(new, text.encode(), mode=status.st_mode & 0o777, group=status.st_gid)
    if os.geteuid() == 0:
        shutil.chown(new, status.st_uid)
    try:
        yield new
    finally:
        with suppress(OSError):
            new.unlink()


def put(path: Path, text: str) -> Path:
    """Replace the file; its backup beside it."""
    status = path.stat()
    backup = _back_up(path, path.read_bytes())
    write_whole(path, text.encode(), mode=status.st_mode & 0o777, group=status.st_gid)
    if os.geteuid() == 0:
        shutil.chown(path, status.st_uid)
    return backup


def _back_up(path: Path, content: bytes) -> Path:
    status = path.stat()
    before = f"{path.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    taken = len(list(path.parent.glob(f"{before}*")))
    backup = path.with_name(f"{before}.{taken}" if taken else before)
    write_whole(backup, content, mode=status.st_mode & 0o777, group=status.st_gid)
    if os.geteuid() == 0:
        shutil.chown(backup, status.st_uid)
    return backup
