"""`python -m agent.worker ID`: the worker of an instance. `--pack NAME`: of a pack of sessions."""

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


def main(argv: list[str]) -> int:
    # The modules below import asyncio: each only where its worker is wanted.
    import_asyncio_without_tls()
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
