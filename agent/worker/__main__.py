"""`python -m agent.worker ID`: the worker of an instance. `--pack NAME`: of a pack of sessions."""

import gc
import sys
from types import ModuleType

LATER = ("inspect", "locale", "textwrap", "tokenize")


class Later(ModuleType):
    """Stands in for a module that asyncio, dataclasses and traceback import and hardly use, and
    loads it when it is asked for more. Together these are a tenth of a small worker."""

    signature = unwrap = staticmethod(lambda function: function)
    isfunction = iscoroutinefunction = staticmethod(lambda _: False)

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:  # another Python asks for it within the import
            del sys.modules[self.__name__]
        return getattr(__import__(self.__name__), name)


def import_asyncio_in_small() -> None:
    """Import asyncio and dataclasses without those modules, and as on a Python built without
    OpenSSL, which asyncio provides for.

    Afterwards each import works as usual, only asyncio's own TLS stays out of reach.
    """
    # Python 3.11 builds the classes of datetime.py, then takes those of its C module.
    sys.modules.setdefault("datetime", __import__("_datetime"))
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules |= {"ssl": None} | {name: Later(name) for name in LATER}  # type: ignore[arg-type]
    try:
        import asyncio  # noqa: F401
        import dataclasses  # noqa: F401
    finally:
        for name in ("ssl", *LATER):
            del sys.modules[name]


def main(argv: list[str]) -> int:
    gc.disable()  # until READY: what the imports leave is little, and looking for it is a tenth
    # The modules below import asyncio: each only where its worker is wanted.
    import_asyncio_in_small()
    from agent.worker.life import live

    if len(argv) == 2 and argv[0] == "--pack":
        from agent.worker.pack import read_pack, work_together

        return live(argv[1], read_pack, work_together)
    if len(argv) != 1:
        print("usage: python -m agent.worker ID | --pack NAME", file=sys.stderr)
        return 78
    from agent.worker.identity import read_identity
    from agent.worker.run import work_alone

    return live(argv[0], read_identity, work_alone)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
