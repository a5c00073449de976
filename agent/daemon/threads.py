"""The threads that wait for disks: all are started at once, while the machine still allows it."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""As many as Python would start, one by one."""


async def start_threads() -> None:
    """Later a limit of tasks may allow no thread, and a pass that needs one would fail."""
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
    )
    all_started = threading.Barrier(THREADS)
    await asyncio.gather(*(asyncio.to_thread(all_started.wait, 10.0) for _ in range(THREADS)))
