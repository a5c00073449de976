"""`python -m agent.worker ID`: the worker of an instance. `--pack NAME`: of a pack of sessions."""

import sys
from types import ModuleType


class Inspect(ModuleType):
    """Stands in for `inspect`, which with its parsers is a tenth of a small worker: asyncio and
    dataclasses hardly use it. Loads it when it is asked for more."""

    signature = staticmethod(lambda _class: "")

    @staticmethod
    def iscoroutinefunction(function: object) -> bool:
        return bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x80)

    def __getattr__(self, name: str) -> object:
        if sys.modules.get("inspect") is self:  # another Python's asyncio asks while it is imported
            del sys.modules["inspect"]
        return getattr(__import__("inspect"), name)


def import_asyncio_in_small() -> None:
    """Import asyncio and dataclasses without `inspect`, and as on a Python built without OpenSSL,
    which asyncio provides for.

    Afterwards `import ssl` and `import inspect` work as usual, only asyncio's own TLS stays out of
    reach.
    """
    # Python 3.11 builds the classes of datetime.py, then takes those of its C module.
    sys.modules.setdefault("datetime", __import__("_datetime"))
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules |= {"ssl": None, "inspect": Inspect("inspect")}  # type: ignore[dict-item]
    try:
        import asyncio  # noqa: F401
        import dataclasses  # noqa: F401
    finally:
        del sys.modules["ssl"], sys.modules["inspect"]


def main(argv: list[str]) -> int:
    # The modules below import asyncio: each only where its worker is wanted.
    import_asyncio_in_small()
    if len(argv) == 2 and argv[0] == "--pack":
        from agent.worker.pack import run_pack

        return run_pack(argv[1])
    if len(argv) != 1:
        print("usage: python -m agent.worker ID | --pack NAME", file=sys.stderr)
        return 78
    from agent.worker.run import run_worker

    return run_worker(argv[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
