"""Get the client's packages with npm: `python -m agent.engines.baileys.fetch CACHE`.

npm checks each package against the lock file and runs no script of a package. Without a network:
run `npm ci --cache DIR` with these package.json and package-lock.json elsewhere, bring DIR here,
and name it as the second argument.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from agent import errors, other_user
from agent.engines.baileys import node

_MOST = 600.0


def fetch_packages(cache: Path, brought: Path | None = None) -> Path:
    """Have the packages in the cache; EngineError says what to do."""
    wanted = node.packages_folder(cache)
    with suppress(errors.ConfigError):
        return node.find_packages(cache)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=".fetch-") as made:
        folder = Path(made) / "packages"
        folder.mkdir(mode=0o755)
        for file in (node.CLIENT / "package.json", node.LOCK):
            shutil.copyfile(file, folder / file.name)
        _run_npm(folder, brought)
        (folder / node.LOADER).write_text(node.LOADER_TEXT, encoding="utf-8")
        (folder / node.MARK).touch()
        os.sync()
        if wanted.exists():
            shutil.rmtree(wanted)  # of packages only: one that was cut off before its mark
        folder.replace(wanted)
    return wanted


def _run_npm(folder: Path, brought: Path | None) -> None:
    npm = node.find_npm()
    if not npm:
        raise errors.EngineError(
            "cannot fetch the packages of the baileys engine: npm is missing; it comes with"
            " `scripts/install --with baileys`, or as Debian's package npm",
            code="npm_missing",
        )
    line = [*npm, "ci", "--omit=dev", "--ignore-scripts", "--legacy-peer-deps", "--no-audit"]
    line += ["--no-fund", "--loglevel=error"]
    own = folder.with_name("npm-cache")
    line += ["--cache", str(own if brought is None else brought.absolute())]
    if brought is not None:
        line += ["--offline"]
    env = dict(os.environ)
    if not os.access(env.get("HOME", ""), os.W_OK):
        env["HOME"] = str(folder.parent)  # the service's user has none
    try:
        done = subprocess.run(
            line, cwd=folder, env=env, capture_output=True, text=True, timeout=_MOST, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"cannot run npm: {errors.cause_of(error)}"
        raise errors.EngineError(why, code="npm_failed") from error
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-600:]
        way = node.offline_way("CACHE")
        why = f"cannot fetch the packages of the baileys engine: {words}. {way}"
        raise errors.EngineError(why, code="offline")


def main(argv: list[str]) -> int:
    if len(argv) not in (1, 2):
        print(f"usage: {sys.executable} -m {node.FETCH} CACHE [NPM-CACHE]", file=sys.stderr)
        return 2
    cache, *brought = (Path(name).absolute() for name in argv)
    try:
        words = [node.FETCH, cache, *brought]
        if (status := other_user.as_owner(cache, words, _MOST + 60)) is not None:
            return status
        path = fetch_packages(cache, *brought)
    except (errors.WaError, OSError) as error:
        print(errors.cause_of(error), file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
