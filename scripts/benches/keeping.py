"""Print the µs of a record that is kept alone, in a file that is new and in one that has grown, and
of one of 1,000 with one write: of the tree in PYTHONPATH, below the folder that is named."""

import sys
import time
from pathlib import Path

try:
    from agent.messages.incoming import Incoming
    from agent.messages.record import clean

    file, made = Incoming(Path(sys.argv[1]) / "messages.db"), dict
except ImportError:  # as c1a66003 keeps them
    from agent.wings.messages.record import clean
    from agent.wings.messages.spool.line import entry_of as made
    from agent.wings.messages.spool.page import Bounds
    from agent.wings.messages.spool.spool import Spool

    file = Spool(Path(sys.argv[1]), Bounds())

WORDS = {"kind": "message", "chat": "5511900000002@s.whatsapp.net", "text": "Olá! " * 14}
RECORD = {**WORDS, "at": 1_790_000_000, "from_me": False, "type": "text", "name": "Ana"}
taken = 0
for share, writes in ((1, 200), (1, 800), (1000, 10)):
    begun = time.perf_counter()
    for _ in range(writes):
        ids = [f"3EB0{taken + number:016X}" for number in range(share)]
        file.append([made(clean(RECORD | {"id": id, "message_id": id})) for id in ids])
        taken += share
    print((time.perf_counter() - begun) / writes / share * 1e6)
