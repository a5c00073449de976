"""Get the wa-js bundle from the npm registry: `python -m agent.engines.web.fetch CACHE`."""

import json
import sys
from io import BytesIO
from pathlib import Path

from agent import errors, files
from agent.engines.base import sha256

VERSION = "4.6.0"
NAME = "@wppconnect/wa-js"
SHA256 = "5bfb88027f14a4d8c9e319374e8bb4083201906881cf8c74f75789b32e4106bd"
FETCH = "agent.engines.web.fetch"
"""The program that gets it; what only that needs is imported in its functions, or every worker
would carry an HTTP client."""


def bundle_path(cache: Path) -> Path:
    return cache / "wa-js" / f"wppconnect-wa-{VERSION}.js"


def read_bundle(cache: Path) -> str:
    """Return the bundle's text; ConfigError if it is missing or not the one we know."""
    path = bundle_path(cache)
    try:
        with files.open_plain(path, links=True) as file:
            content = file.read(_SIZE_LIMIT)
    except FileNotFoundError:
        why = f"cannot find the wa-js bundle {path}; fetch it: {fetch_command(cache)}"
        raise errors.ConfigError(why, code="bundle_missing") from None
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}"
        raise errors.ConfigError(why, code="bundle_missing") from error
    if sha256(content) != SHA256:
        raise errors.ConfigError(
            f"cannot use {path}: its checksum is not that of {NAME} {VERSION};"
            " remove the file and fetch it again",
            code="bundle_changed",
        )
    return content.decode()


def fetch_command(cache: Path) -> str:
    """Return a command to paste. It names this Python, because no other one knows this program."""
    return f"{sys.executable} -m {FETCH} {cache}"


def page_config(device_name: str) -> str:
    """Return the configuration that the bundle reads before it starts; its telemetry is off."""
    return json.dumps({"disableGoogleAnalytics": True, "deviceName": device_name or False})


PACKAGE_SHA256 = "28f761a900db2160ec7a165c2a67b97cf6f814d8a797a5d9b6bfc06df1574df9"
MEMBER = "package/dist/wppconnect-wa.js"
REGISTRY = "https://registry.npmjs.org/"
_SIZE_LIMIT = 8 * 1024 * 1024
_MOST = 120.0


def fetch_bundle(cache: Path) -> Path:
    """Have the bundle in the cache; EngineError `offline` says what to do without a network."""
    path = bundle_path(cache)
    try:
        read_bundle(cache)
    except errors.ConfigError:
        keep_bundle(cache, _unpack(_download(cache)))
    return path


def keep_bundle(cache: Path, content: bytes) -> Path:
    """Write the bundle into the cache in one step; EngineError if it is not the one we know."""
    if (digest := sha256(content)) != SHA256:
        why = f"cannot use this bundle: sha256 {digest} is not that of {NAME} {VERSION}"
        raise errors.EngineError(why, code="bundle_changed")
    path = bundle_path(cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, content, mode=0o644)
    return path


def _download(cache: Path) -> bytes:
    import urllib.request

    url = f"{REGISTRY}{NAME}/-/{NAME.split('/')[1]}-{VERSION}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            content: bytes = reply.read(_SIZE_LIMIT)
    except (OSError, ValueError) as error:
        raise errors.EngineError(
            f"cannot fetch {url}: {errors.cause_of(error)}. Without a network: on another machine"
            f" run `npm pack {NAME}@{VERSION}`, bring the file here, then"
            f" {fetch_command(cache)} FILE",
            code="offline",
        ) from error
    return content


def _unpack(package: bytes) -> bytes:
    import tarfile

    if sha256(package) != PACKAGE_SHA256:
        why = f"cannot use what the registry sent: it is not {NAME} {VERSION}"
        raise errors.EngineError(why, code="bundle_changed")
    with tarfile.open(fileobj=BytesIO(package), mode="r:gz") as archive:
        file = archive.extractfile(MEMBER)
        assert file is not None  # the checksum says so
        return file.read(_SIZE_LIMIT)


def read_package(file: str) -> bytes:
    """Read a package file that was brought here; "-" is the standard input."""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        with files.open_plain(file, links=True) as package:
            return package.read(_SIZE_LIMIT)
    except OSError as error:
        raise errors.EngineError(f"cannot read {file}: {error.strerror}") from error


def main(argv: list[str]) -> int:
    if len(argv) not in (1, 2):
        print(f"usage: {sys.executable} -m {FETCH} CACHE [PACKAGE-FILE]", file=sys.stderr)
        return 2
    from agent.other_user import as_owner

    cache = Path(argv[0]).absolute()
    try:
        # Root reads the file that root brought; who may change the cache writes there.
        package = read_package(argv[1]) if len(argv) == 2 else None
        words = [FETCH, cache, *(() if package is None else "-")]
        if (status := as_owner(cache, words, _MOST, package or b"")) is not None:
            return status
        path = fetch_bundle(cache) if package is None else keep_bundle(cache, _unpack(package))
    except (errors.WaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
