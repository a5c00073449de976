"""Archives: out and in again, and nothing that was put into one gets out of its folder."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.model import Instance, InstanceId, SessionFiles
from agent.errors import InvalidRequest, TooLarge, VaultError, WaError
from agent.vault.archives import Limits, export_snapshot, read_members, unpack
from agent.vault.identity import Identity, read_identity
from agent.vault.restore import put_in_place
from agent.vault.snapshots import parse_manifest, take_snapshot
from tests.refused import refused
from tests.vault.conftest import contents, sandbox_file

LIMITS = Limits(packed=1 << 22, unpacked=1 << 22, files=100)
OTHER = InstanceId("other")


@pytest.fixture
def archive(root, session, subject):
    out = io.BytesIO()
    export_snapshot(root, take_snapshot(root, subject), out)
    return out.getvalue()


def arrive(root, raw, limits=LIMITS, source=None):
    try:
        return unpack(root, source or io.BytesIO(raw), OTHER, limits)
    finally:
        # Whatever came of it: nothing but the staging was touched.
        assert {part.name for part in root.iterdir()} <= {"sales", ".snapshots", ".staging"}


def test_a_session_goes_out_and_in_and_is_the_same(root, session, subject):
    out = io.BytesIO()
    packed = export_snapshot(root, take_snapshot(root, subject), out)
    raw = out.getvalue()
    assert (packed.size, packed.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    arrived = unpack(root, io.BytesIO(raw), OTHER, LIMITS)
    assert arrived.state is SessionFiles.WHOLE
    made = Instance(OTHER, "sandbox", False, arrived.manifest.settings, 5.0)
    identity = Identity(made, True, arrived.manifest.account)
    assert put_in_place(root, "import", identity, lineage="l", why="", replace=False) is None
    assert contents(root / "other" / "session") == contents(session)
    assert (root / "other" / "session" / "keys" / "empty").is_dir()
    assert read_identity(root / "other") == replace(identity, lineage="l")


def test_anybodys_tar_can_read_it(archive, session):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = tar.getnames()
        assert names[0] == "manifest.json"
        assert tar.extractfile("session/sandbox.json").read() == sandbox_file()
    assert names[1:] == ["session/keys/none", "session/keys/one", "session/sandbox.json"]


def test_long_and_foreign_names_survive(root, session, subject):
    deep = session / ("ä" * 60) / ("b" * 200)
    deep.mkdir(parents=True)
    (deep / ("c" * 250)).write_bytes(b"deep")
    (session / "line\nbreak").write_bytes(b"odd")
    bad = bytes(session) + b"/\xff\xfe"
    with open(bad, "wb") as file:  # noqa: PTH123 - no text is its name
        file.write(b"bytes")
    out = io.BytesIO()
    export_snapshot(root, take_snapshot(root, subject), out)
    arrive(root, out.getvalue())


def test_a_rotten_snapshot_is_not_exported(root, session, subject):
    taken = take_snapshot(root, subject)
    for raw in (b"short", b"x" * 768_000, b"x" * 800_000):
        (taken.path / "files" / "keys" / "one").write_bytes(raw)
        with refused(VaultError, "damaged"):
            export_snapshot(root, taken, io.BytesIO())


# hostile archives


def build(*members, manifest=None, tail=b""):
    """A gzipped tar of (TarInfo or name, content); the manifest lists the plain files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, raw in [(tarfile.TarInfo("manifest.json"), manifest), *members]:
            if raw is None and info.name == "manifest.json":
                continue
            info.size = len(raw or b"") if info.isreg() else info.size
            tar.addfile(info, io.BytesIO(raw or b""))
    return gzip.compress(out.getvalue() + tail)


def manifest_of(*files, folders=(), **changes):
    listed = [
        {"path": path, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        for path, raw in files
    ]
    told = {
        **{"format": "wa-agent session", "version": 1, "id": "sales", "engine": "sandbox"},
        **{"settings": {}, "account": "49151", "paired": True, "created_wall": 1.0},
        **{"lineage": "", "taken_wall": 1.0, "why": "", "backup": False, "state": "whole"},
        **{"consistent": True, "files": listed, "folders": list(folders)},
    }
    return json.dumps(told | changes).encode()


def member(name, kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


FILE = ("sandbox.json", sandbox_file())
GOOD = manifest_of(FILE)
PLAIN = (member("session/sandbox.json"), FILE[1])


def instead(kind, name="session/sandbox.json", **more):
    """An archive with another kind of member in the place of its file."""
    return build((member(name, kind, **more), None), manifest=GOOD)


def listing(*files, **changes):
    return build(PLAIN, manifest=manifest_of(*files, **changes))


WHOLE = build(PLAIN, manifest=GOOD)
HOSTILE = {
    "nothing": (b"", "no tar"),
    "no tar": (gzip.compress(b"x" * 5000), "no tar"),
    "no manifest": (build(PLAIN), "manifest.json does not come first"),
    "an empty manifest": (build(manifest=b"{}"), "its format is None"),
    "a file is missing": (build(manifest=GOOD), "'sandbox.json' is missing"),
    "one too many": (build(PLAIN, PLAIN, manifest=GOOD), "not in its manifest"),
    "traversal": (build((member("session/../../evil"), b"x"), manifest=GOOD), "lists next"),
    "absolute": (build((member("/etc/passwd"), b"x"), manifest=GOOD), "lists next"),
    "another content": (build((PLAIN[0], b"x" * len(FILE[1])), manifest=GOOD), "its checksum"),
    "a symbolic link": (instead(tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
    "a hard link": (instead(tarfile.LNKTYPE, linkname="manifest.json"), "no plain file"),
    "a device": (instead(tarfile.CHRTYPE, devmajor=1, devminor=3), "no plain file"),
    "a pipe": (instead(tarfile.FIFOTYPE), "no plain file"),
    "a sparse file": (instead(tarfile.GNUTYPE_SPARSE), "no plain file"),
    "listed traversal": (listing(("../evil", b"x")), "leads out"),
    "listed absolute": (listing(("/evil", b"x")), "leads out"),
    "listed twice": (listing(FILE, FILE), "listed twice"),
    "a file as a folder": (listing(("a", b""), ("a/b", b"")), "without its folder"),
    "a folder as a file": (listing(FILE, folders=["sandbox.json"]), "listed twice"),
    "a foul id": (listing(FILE, id="../x"), "instance id"),
    "torn": (listing(FILE, consistent=False), "consistent"),
    "newer": (listing(FILE, version=2), "version is 2"),
    "nested without end": (build(PLAIN, manifest=b"[" * 100_000), "cannot use"),
    "something after": (WHOLE + b"x", "no gzip|follows its end"),
    "a second gzip": (WHOLE + gzip.compress(b"x"), "follows its end"),
    "after the tar": (build(PLAIN, manifest=GOOD, tail=b"x" * 512), "follows its end"),
    "cut": (WHOLE[:-40], "too early|damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_f81_an_archive_that_is_not_as_it_should_be_is_refused(root, kind):
    raw, words = HOSTILE[kind]
    with refused(InvalidRequest, "bad_archive", match=words):
        arrive(root, raw)
    assert not (root / ".staging").exists() or list((root / ".staging").iterdir()) == []


def test_the_plainest_archive_is_taken(root):
    assert arrive(root, build(PLAIN, manifest=GOOD)).state is SessionFiles.WHOLE
    assert contents(root / ".staging" / "other.import") == {"session/sandbox.json": FILE[1]}


NOISE = random.Random(1).randbytes(1 << 20)


@pytest.mark.parametrize(
    ("files", "limits", "code"),
    [
        ([("a", b"x" * 2_000_000)], {"unpacked": 1 << 20}, "unpacks_too_large"),
        ([(str(n), b"") for n in range(20)], {"files": 10}, "too_many_files"),
        ([("a", NOISE)], {"packed": 1 << 18}, TooLarge("").code),
    ],
    ids=["unpacked", "files", "packed"],
)
def test_an_archive_over_its_limits_is_refused(root, files, limits, code):
    members = [(member(f"session/{path}"), raw) for path, raw in files]
    raw = build(*members, manifest=manifest_of(*files))
    with refused(TooLarge, code):
        arrive(root, raw, replace(LIMITS, **limits))


def bomb(size):
    """Says nothing of its size, and unpacks to as much as it likes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as zipped:
        head = member("session/sandbox.json")
        head.size = size
        first = tarfile.TarInfo("manifest.json")
        first.size = len(GOOD)
        zipped.write(first.tobuf() + GOOD.ljust(-(-len(GOOD) // 512) * 512, b"\0"))
        zipped.write(head.tobuf())
        for _ in range(size >> 20):
            zipped.write(bytes(1 << 20))
    return out.getvalue()


def test_f82_a_bomb_is_stopped_while_it_unpacks(root):
    raw = bomb(256 << 20)
    assert len(raw) < 1 << 20
    arriving, reading = io.BytesIO(raw), io.BytesIO(raw)
    with pytest.raises((TooLarge, InvalidRequest)):
        arrive(root, raw, source=arriving)
    with refused(TooLarge, "unpacks_too_large"):
        for found in read_members(reading, LIMITS):
            for _ in found.pieces:
                pass
    assert max(arriving.tell(), reading.tell()) < len(raw) / 2, "most of it was never read"


def test_a_huge_extended_head_is_not_read_into_memory(root):
    head = member("x", tarfile.XHDTYPE)
    head.size = 8 << 30
    with pytest.raises(InvalidRequest, match="extended head"):
        arrive(root, gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))


NAMES = st.text(
    st.sampled_from(["a", "b", "/", ".", "\\", "\0", "\n", "ä", "\ud800", " "]), max_size=12
)
KINDS = st.sampled_from(
    [
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
        *(tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"L"),
    ]
)


@settings(max_examples=150)
@given(
    listed=st.lists(st.tuples(NAMES, st.binary(max_size=600)), max_size=4),
    folders=st.lists(NAMES, max_size=3),
    packed=st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=600), NAMES), max_size=4),
)
def test_f81_no_archive_gets_out_of_its_folder(tmp_path_factory, listed, folders, packed):
    (root := tmp_path_factory.mktemp("any") / "deep" / "sessions").mkdir(parents=True)
    members = []
    for name, kind, raw, link in packed:
        info = member("session/" + name.replace("\0", ""), kind, linkname=link.replace("\0", ""))
        members.append((info, raw))
    try:
        raw = build(*members, manifest=manifest_of(*listed, folders=folders))
    except (UnicodeError, ValueError, tarfile.TarError):
        return  # no such archive can be made
    before = set(root.parent.parent.rglob("*"))
    try:
        arrive(root, raw)
    except WaError:
        assert not contents(root)
    made = set(root.parent.parent.rglob("*")) - before
    assert all(path.is_relative_to(root / ".staging") for path in made)
    assert not [path for path in made if path.is_symlink() or not (path.is_file() or path.is_dir())]


@settings(max_examples=200)
@given(st.data())
def test_f81_a_changed_archive_is_refused_or_gives_the_same_session(tmp_path_factory, data):
    """Any bytes of a real archive changed, cut or doubled."""
    files = [("sandbox.json", FILE[1]), ("keys/one", bytes(range(256)))]
    members = [(member(f"session/{path}"), raw) for path, raw in files]
    plain = gzip.decompress(build(*members, manifest=manifest_of(*files, folders=["keys"])))
    raw = bytearray(plain)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double"])):
            case "flip":
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 1024))]
            case _:
                raw[at:at] = raw[at : at + data.draw(st.integers(1, 1024))]
        if not raw:
            break
    root = tmp_path_factory.mktemp("any")
    try:
        arrived = arrive(root, gzip.compress(bytes(raw)))
    except WaError as error:
        assert isinstance(error, InvalidRequest | TooLarge), error
        assert not contents(root)
        return
    found = contents(root / ".staging" / "other.import" / "session")
    assert {name: hashlib.sha256(raw).hexdigest() for name, raw in found.items()} == {
        file.path: file.sha256 for file in arrived.manifest.listing.files
    }


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
).map(lambda told: json.dumps(told).encode()))  # fmt: skip
def test_no_manifest_makes_the_reader_fail(tmp_path_factory, raw):
    with pytest.raises(VaultError):
        parse_manifest(raw, tmp_path_factory.getbasetemp())
