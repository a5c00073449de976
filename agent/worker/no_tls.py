"""Keep out of a worker's memory what its engine does not need."""

import sys


def import_asyncio_without_tls() -> None:
    """Import asyncio as on a Python built without OpenSSL, which asyncio provides for.

    OpenSSL is about a tenth of a small worker. Afterwards `import ssl` works as usual,
    only asyncio's own TLS stays out of reach.
    """
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
