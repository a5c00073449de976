"""Heads of requests that are too long, too many, odd, or contradict each other."""

from random import Random


def odd_head(chance: Random, target: str) -> bytes:
    odd = bytes(chance.randrange(256) for _ in range(chance.randint(1, 60)))
    line = f"GET {target} HTTP/1.1\r\n".encode("latin-1")
    host = b"Host: localhost\r\n"
    n = chance.choice([10, 1000, 100_000])
    kinds = (
        line + host + b"X-A: " + b"a" * n * 10 + b"\r\n\r\n",
        line + host + b"".join(b"X-%d: b\r\n" % i for i in range(n // 10)) + b"\r\n",
        line + host + odd + b": x\r\n\r\n",
        line + host + b"X-A: " + odd + b"\r\n\r\n",
        line + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        line + host + b"Content-Length: -1\r\n\r\n",
        line + host + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        line + host + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        line + host + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        line + host + b"Authorization: Bearer " + odd.replace(b"\n", b"") + b"\r\n\r\n",
        line + host + b"Authorization: " + b"Bearer " * n + b"\r\n\r\n",
        line + host + b"Cookie: " + odd.hex().encode() * 50 + b"\r\n\r\n",
        line + b"Host: localhost\r\nHost: evil.example\r\n\r\n",
        line + b"Host: evil.example\r\n\r\n",
        line + b"Host: localhost:99999999\r\n\r\n",
        line + b"Host: [::1\r\n\r\n",
        line + b"Host: " + odd.replace(b"\n", b"") + b"\r\n\r\n",
        line + host + b"Origin: https://evil.example\r\n\r\n",
        line + host + b"Origin: null\r\nOrigin: http://localhost\r\n\r\n",
        line + host + b"Sec-Fetch-Site: cross-site\r\n\r\n",
        line + host + b"X-Forwarded-For: " + odd.hex().encode() * 30 + b"\r\n\r\n",
        line + host + b"Idempotency-Key: " + odd.hex().encode() * 30 + b"\r\n\r\n",
        b"GET " + odd + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /" + b"a" * n + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /api/instances?id=" + b"%ff" * min(n, 2000) + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\n" + host + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + host + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + odd,
        b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + odd,
        odd,
        b"\r\n" * n,
    )
    return chance.choice(kinds)
