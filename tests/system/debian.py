"""A minimal Debian in a machine of its own: none of our files, packages or tools are in it."""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.bed import SOURCE, Bed

MIB = 1024 * 1024
NUMBERS = itertools.count(1)
Change = Callable[[Path], None]
SIZE = "3g"
# A bare machine has BASE; apt may fetch OFFERED on it, which has the package's dependencies.
BASE = "systemd-sysv,dbus,openssh-server"
OFFERED = "python3 polkitd unattended-upgrades"
DOWNLOAD = (
    "APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends --download-only"
    f' install {OFFERED} && mkdir "$1/srv/debian"'
    ' && mv "$1"/var/cache/apt/archives/*.deb "$1/srv/debian"'
    ' && cd "$1/srv/debian" && apt-ftparchive packages . > Packages'
)


def bootstrapped() -> Path:
    """Return the bare machine's files, made once a month and whenever their list changes."""
    hook = f"--customize-hook={DOWNLOAD}"
    options = ("--quiet", "--variant=minbase", f"--include={BASE}", hook, "bookworm")
    digest = hashlib.sha256("\n".join(options).encode()).hexdigest()[:16]
    made = SOURCE / f".cache/debian-{time.strftime('%Y-%m')}-{digest}.tar"
    if not made.exists():
        made.parent.mkdir(exist_ok=True)
        for old in made.parent.glob("debian-*.tar"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            making = Path(folder) / "made.tar"
            _do("mmdebstrap", *options, making)
            making.rename(made)
    return made


def make_debian() -> Bed:
    """Laid out, not booted. Its packages come from a folder of its own: no network is needed."""
    place = Path(tempfile.mkdtemp(prefix="wa-bed-", dir="/tmp"))
    bed = Bed(place, place / "root", console=place / "console")
    try:
        _do("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", place)
        bed.root.mkdir()
        keep = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--same-permissions")
        _do("tar", "--extract", *keep, "--file", bootstrapped(), "--directory", bed.root)
        for source in (bed.root / "etc/apt").glob("sources.list*"):
            shutil.rmtree(source) if source.is_dir() else source.unlink()
        debian = "deb [trusted=yes] file:/srv/debian ./\n"
        bed.write("/etc/apt/sources.list.d/debian.list", debian)
        bed.write("/etc/systemd/journald.conf.d/bed.conf", "[Journal]\nRateLimitIntervalSec=0\n")
        bed.write("/etc/hostname", "bare\n")
        for unit in ("ssh.service", "apt-daily.timer", "apt-daily-upgrade.timer"):
            (bed.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        bed.port = free_port()
        bed.write(
            "/etc/systemd/system/wa-agent-http.socket.d/bed.conf",
            f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{bed.port}\n",
        )
    except BaseException:
        bed.close()
        raise
    return bed


@contextlib.contextmanager
def full_disk(bed: Bed, left: int) -> Iterator[None]:
    """The machine's only file system has `left` bytes left."""
    status = os.statvfs(bed.place)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    _do("mount", "-o", f"remount,size={used + left}", bed.place)
    try:
        yield
    finally:
        _do("mount", "-o", f"remount,size={SIZE}", bed.place)


def apt(bed: Bed, *words: str) -> subprocess.CompletedProcess[str]:
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q")
    return bed.try_run(*quiet, "--no-install-recommends", *words, within=300)


# Packages


def build(out: Path, *more: str) -> Path:
    command = [SOURCE / "scripts/package", "--out", out, *more]
    # Packed in a hurry: what is in it is the same.
    hurry = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    env = {**os.environ, **hurry}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[0])


def next_version(package: Path, out: Path, version: str, change: Change) -> Path:
    """The same package with another version; `change` edits its unpacked tree."""
    with tempfile.TemporaryDirectory(dir=out) as folder:
        tree = Path(folder) / "tree"
        _do("dpkg-deb", "--raw-extract", package, tree)
        edit(tree / "DEBIAN/control", r"(?m)^Version: .*", f"Version: {version}")
        edit(program(tree) / "__init__.py", r"(?m)^VERSION = .*", f'VERSION = "{version}"')
        change(tree)
        new = out / f"wa-agent_{version}.deb"
        _do("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, new)
    return new


@dataclass(frozen=True)
class Newer:
    version: str
    path: str
    """On the machine."""


@pytest.fixture
def newer(package: Path, tmp_path: Path, bare: Bed) -> Callable[[Change], Newer]:
    """Makes a changed package, each newer than the one before."""

    def make(change: Change) -> Newer:
        version = f"100.{next(NUMBERS)}"
        made = next_version(package, tmp_path, version, change)
        shutil.copy(made, bare.root / "srv")
        return Newer(version, f"/srv/{made.name}")

    return make


def unchanged(tree: Path) -> None:
    """The same program under another version."""


def program(tree: Path) -> Path:
    (init,) = tree.glob("opt/wa-agent/package/venv/lib/python3*/site-packages/agent/__init__.py")
    return init.parent


def edit(path: Path, old: str, new: str) -> None:
    """Replace one place, found by a regular expression."""
    text, count = re.subn(old, lambda _: new, path.read_text())
    assert count == 1, f"{path}: {old!r} is there {count} times"
    path.write_text(text)


def _do(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
