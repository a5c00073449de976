"""`scripts/chaos baileys --pack N --hours H`: N sessions of the baileys engine in one pack, then as
many with a Node each, for H hours each, under the same load and faults: those of `scripts/chaos
messages`, a full disk, floods, and a contact that sends hostile stanzas and damages records.

Exit status 1 if a pairing was lost, or the pack lost more messages than the sessions alone.
"""

import asyncio
import os
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path

from agent.errors import HostError
from scripts.messages.beds import BaileysBed
from scripts.messages.hardships import own_disk
from scripts.messages.load import Run
from scripts.messages.tally import table

BETWEEN = 12.0
"""Seconds between two messages of a session, in each direction."""
EVERY = 10.0
"""Seconds between two faults. One of a pack's worker or Node takes all of its sessions down."""


def play(root: Path, sessions: int, hours: float, seed: int) -> int:
    """In this folder, which stays where a message or a pairing is lost or a message is doubled."""
    if os.geteuid() != 0:
        print("scripts/chaos: it fills a disk of its own: run it as root", file=sys.stderr)
        return 1
    try:
        packed = _play_one(root / "packed", sessions, sessions, hours, seed)
        alone = _play_one(root / "alone", sessions, 1, hours, seed)
    except HostError as error:
        print(f"not held: {error}; see {root}", file=sys.stderr)
        return 1
    ours, theirs = _lost(packed), _lost(alone)
    print(f"\nLost of all messages: {ours:.3%} in the pack, {theirs:.3%} alone.")
    if not packed.broke() and not alone.broke():
        shutil.rmtree(root)
    return 1 if packed.codes or alone.codes or ours > theirs else 0


def _play_one(root: Path, sessions: int, pack: int, hours: float, seed: int) -> Run:
    root.mkdir()
    options = Namespace(sessions=sessions, pack=pack, seed=seed)
    rate = sessions / BETWEEN
    begun = time.monotonic()
    with own_disk(root / "disk"):
        run = Run(root, BaileysBed(root), options, plain=0, say=_say, disk=root / "disk")
        seconds = hours * 3600
        asyncio.run(run.play(round(rate * seconds), rate, EVERY, longest=seconds))
        if run.broke():
            shutil.copytree(root / "disk" / "state", root / "state", symlinks=True)
    faults = ", ".join(f"{count} times {name}" for name, count in sorted(run.faults.done.items()))
    name = f"one pack of {pack}" if pack > 1 else "a Node each"
    print(f"\n{sessions} sessions, {name}, seed {seed}, {time.monotonic() - begun:.0f} s: ", end="")
    print(f"{len(run.codes)} pairings lost; {run.faults.done.total()} faults ({faults}).\n")
    tallies = [*run.ours.values()]
    head, line, *rows = table(tallies).splitlines()
    hit = [row for tally, row in zip(tallies, rows, strict=False) if not tally.held()]
    print(head, line, *hit, rows[-1], *run.broke(), sep="\n", flush=True)
    return run


def _lost(run: Run) -> float:
    """The share of all messages, in both directions."""
    tallies = run.ours.values()
    all_of = sum(len(tally.said) + len(tally.accepted) for tally in tallies)
    return sum(tally.lost_in() + len(tally.undelivered()) for tally in tallies) / max(all_of, 1)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
