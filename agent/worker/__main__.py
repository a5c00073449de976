"""`python -m agent.worker ID`: the worker of an instance. `--pack NAME`: of a pack of sessions."""

import os
import sys
from pathlib import Path

from agent.engines.catalog import find_engine
from agent.errors import WaError
from agent.worker.identity import read_identity
from agent.worker.no_tls import import_asyncio_without_tls


def main(argv: list[str]) -> int:
    # The modules below import asyncio: each only where its worker is wanted.
    if len(argv) == 2 and argv[0] == "--pack":
        import_asyncio_without_tls()
        from agent.worker.pack.run import run_pack

        return run_pack(argv[1])
    if len(argv) != 1:
        print("usage: python -m agent.worker ID | --pack NAME", file=sys.stderr)
        return 78
    if not _needs_tls(argv[0]):
        import_asyncio_without_tls()
    from agent.worker.run import run_worker

    return run_worker(argv[0])


def _needs_tls(id_text: str) -> bool:
    try:
        identity = read_identity(id_text, Path(os.environ.get("WA_SESSION_ROOT", "")))
        return find_engine(identity.engine).tls
    except WaError:
        return False  # such a worker only says what is wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
