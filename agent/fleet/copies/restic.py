"""Browser profiles in a restic repository that all machines of the fleet reach.

restic gets the repository and its password through its environment and an open file: neither
stands in a command line. Its repository is encrypted with a password that follows from the fleet's
key.
"""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.errors import Refused, TryLater, VaultError, WaError
from agent.vault.tree import Listing

PROGRAM = "restic"
KEEP = 3
"""Snapshots of each instance that stay."""
QUICK, LONG = 120.0, 3600.0
"""Seconds for a question to the repository, and for moving a profile."""
PATIENCE, LOOK_AGAIN = 120.0, 2.0
"""Seconds that a profile waits for another machine's `forget` or `prune`, and between two tries."""
_GRACE = 5.0
_MOST_OUTPUT = 1 << 20
_PIECE = 1 << 16
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "SSH_AUTH_SOCK")
_CAUSES = (
    ("already locked", "profiles_locked"),
    ("wrong password or no key found", "profiles_password"),
    ("is there a repository at", "profiles_absent"),
    ("no space left on device", "profiles_full"),
    ("disk quota exceeded", "profiles_full"),
    ("read-only file system", "profiles_read_only"),
)
"""Words of restic's, in lower case, and the code of the error that they mean."""
_PASSING = ("profiles_locked",)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Command(Generic[Result]):
    words: tuple[str, ...]
    consume: Callable[[IO[bytes]], Result]
    """Reads what it prints."""
    cwd: Path | None = None
    limit: float = QUICK
    """Seconds."""
    patience: float = 0.0
    """Seconds in which another machine may have the repository for itself."""


@dataclass(slots=True, eq=False)
class Restic:
    repository: str = field(repr=False)
    password: str = field(repr=False)
    cache: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    _exists: bool = field(init=False, default=False)

    async def exists(self) -> bool:
        """Whether there is a repository that the fleet's key opens."""
        if not self._exists:
            try:
                await self._run("cat", "config")
            except WaError as error:
                if error.code != "profiles_absent":
                    raise
                return False
        self._exists = True
        return True

    async def make(self) -> None:
        """No other machine may do it at the same time: neither could read it then."""
        await self._run("init")

    async def save(self, folder: Path, id: InstanceId, epoch: int) -> str:
        """The new snapshot's id. The folder must not change meanwhile."""
        tags = f"instance={id},epoch={epoch}"
        words = ("backup", "--json", "--host", "wa-fleet", "--tag", tags, ".")
        raw = await self._run(*words, cwd=folder, limit=LONG, patience=PATIENCE)
        try:
            return str(json.loads(raw.splitlines()[-1])["snapshot_id"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _error("restic answered without a snapshot's id", "profiles") from error

    async def verify(self, snapshot: str, below: str, listing: Listing) -> None:
        """Read all of it from the repository: VaultError unless it is what was saved."""

        def compare(stream: IO[bytes]) -> str:
            return _first_fault(stream, below, listing)

        command = _Command(("dump", snapshot, "/"), compare, limit=LONG, patience=PATIENCE)
        fault = await self._call(command)
        if fault:
            raise _error(f"snapshot {snapshot} is not what was saved: {fault}", "damaged")

    async def restore(self, snapshot: str, target: Path) -> None:
        words = ("restore", snapshot, "--target", str(target))
        await self._run(*words, limit=LONG, patience=PATIENCE)

    async def forget(self, newest: Mapping[InstanceId, str]) -> None:
        """Of these instances all snapshots but this one and a few of before; `prune` frees their
        room. By owners' epochs, not by the time alone: that is of each machine's own clock."""
        surplus: list[str] = []
        for id, snapshot in newest.items():
            raw = await self._run("snapshots", "--json", "--tag", f"instance={id}")
            try:
                surplus += find_surplus(json.loads(raw), snapshot)
            except (ValueError, KeyError, TypeError) as error:
                raise _error("restic's list of snapshots cannot be read", "profiles") from error
        if surplus:
            await self._run("forget", *surplus)

    async def prune(self) -> None:
        await self._run("prune", "--max-repack-size", "1G", limit=LONG)

    # inside

    async def _run(
        self, *words: str, cwd: Path | None = None, limit: float = QUICK, patience: float = 0.0
    ) -> bytes:
        return await self._call(_Command(words, _read_all, cwd, limit, patience))

    async def _call(self, command: _Command[Result]) -> Result:
        until = boot_now() + command.patience
        try:
            return await self._try(command)
        except TryLater as error:
            if error.code != "profiles_locked":
                raise
        # Of a restic that was killed: this removes locks of processes that ended, and no other.
        await self._try(_Command(("unlock",), _read_all))
        while True:
            try:
                return await self._try(command)
            except TryLater as error:
                if error.code != "profiles_locked" or boot_now() > until:
                    raise
            await asyncio.sleep(LOOK_AGAIN * random.uniform(0.5, 1.0))

    async def _try(self, command: _Command[Result]) -> Result:
        if shutil.which(PROGRAM) is None:
            raise Refused(
                "cannot move browser profiles: restic is not installed: apt install restic",
                code="no_restic",
            )
        verb = command.words[0]
        try:
            code, said, reading = await self._run_to_end(command)
        except OSError as error:
            raise _error(f"restic {verb} cannot be run: {error}", "profiles") from error
        if code:
            raise self._explained(verb, code, said)
        return reading.result()

    async def _run_to_end(
        self, command: _Command[Result]
    ) -> "tuple[int, str, asyncio.Future[Result]]":
        with tempfile.TemporaryFile() as errors:
            out, process = await self._start(command.words, command.cwd, errors)
            reading = asyncio.ensure_future(asyncio.to_thread(_consume, out, command.consume))
            try:
                async with asyncio.timeout(command.limit):
                    code = await process.wait()
                    # A child of a killed restic may hold the pipe open.
                    await asyncio.wait({reading})
            except TimeoutError:
                raise TryLater(
                    f"restic {command.words[0]} did not end within {command.limit:g} s",
                    code="profiles_timeout",
                ) from None
            finally:
                await _end(process, reading)
            errors.seek(0)
            return code, errors.read(_MOST_OUTPUT).decode(errors="replace"), reading

    async def _start(
        self, words: tuple[str, ...], cwd: Path | None, errors: IO[bytes]
    ) -> tuple[int, asyncio.subprocess.Process]:
        out, into = os.pipe()
        password = -1
        try:
            password = os.memfd_create("password")
            os.write(password, self.password.encode())
            env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            env |= self.env
            env |= {
                "RESTIC_REPOSITORY": self.repository,
                "RESTIC_PASSWORD_FILE": f"/dev/fd/{password}",
                "RESTIC_CACHE_DIR": str(self.cache),
                "RESTIC_PROGRESS_FPS": "0.01",
            }
            process = await asyncio.create_subprocess_exec(
                PROGRAM,
                *words,
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=into,
                stderr=errors,
                pass_fds=(password,),
                start_new_session=True,
            )
        except BaseException:
            os.close(out)
            raise
        finally:
            os.close(into)
            if password >= 0:
                os.close(password)
        return out, process

    def _explained(self, verb: str, code: int, said: str) -> WaError:
        for secret in (self.repository, *self.env.values()):
            if len(secret) > 3:
                said = said.replace(secret, "(hidden)")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith("Fatal: ")]
        line = (fatal or lines or [f"it ended with {code}"])[0].removeprefix("Fatal: ")
        error = f"restic {verb}: {line[:300]}"
        for words, name in _CAUSES:
            if words in said.lower():
                if name == "profiles_read_only":
                    error += "; add its folder to ReadWritePaths= of wa-agent.service"
                return TryLater(error, code=name) if name in _PASSING else _error(error, name)
        return _error(error, "profiles")


def find_surplus(listed: Sequence[Mapping[str, Any]], newest: str) -> list[str]:
    """Ids of those that need not stay beside `newest`, which stays whatever the clocks say."""

    def age(snapshot: Mapping[str, Any]) -> tuple[int, str]:
        epochs = [tag for tag in snapshot["tags"] if tag.startswith("epoch=")]
        return max((int(tag.removeprefix("epoch=")) for tag in epochs), default=0), snapshot["time"]

    others = [it for it in listed if not it["id"].startswith(newest)]
    others.sort(key=age, reverse=True)
    return [str(it["id"]) for it in others[KEEP - 1 :]]


async def _end(process: asyncio.subprocess.Process, reading: "asyncio.Future[Any]") -> None:
    """Whatever is left of it: an interrupted restic takes its lock away, a killed one does not."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await process.wait()
    if not reading.done():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child of its own holds the pipe
        await asyncio.wait({reading})


def _read_all(stream: IO[bytes]) -> bytes:
    return stream.read(_MOST_OUTPUT)


def _consume(out: int, consume: Callable[[IO[bytes]], Result]) -> Result:
    with os.fdopen(out, "rb") as stream:
        try:
            return consume(stream)
        finally:
            while stream.read(_PIECE):
                pass  # a pipe without a reader would end restic with an error of its own


def _first_fault(stream: IO[bytes], below: str, listing: Listing) -> str:
    """Where the files below a folder of a tar differ from what they should be; "" = nowhere."""
    expected = {below + file.path: file for file in listing.files}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            file = expected.pop(member.name, None) if member.isfile() else None
            content = tar.extractfile(member) if file is not None else None
            if file is None or content is None:
                continue
            digest = hashlib.sha256()
            while piece := content.read(_PIECE):
                digest.update(piece)
            if digest.hexdigest() != file.sha256:
                return f"{member.name!r} differs"
    return f"{next(iter(expected))!r} is missing" if expected else ""


def _error(cause: str, code: str) -> VaultError:
    return VaultError(f"cannot move a browser profile: {cause}", code=code)
