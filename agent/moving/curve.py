"""The public key of an X25519 private key (RFC 7748): whatsmeow stores private keys only."""

_P = 2**255 - 19
_A24 = 121665


def public_key(private: bytes) -> bytes:
    scalar = bytearray(private)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return _times_base(int.from_bytes(scalar, "little")).to_bytes(32, "little")


def _times_base(scalar: int) -> int:
    """The Montgomery ladder from the base point 9."""
    x1, x2, z2, x3, z3 = 9, 1, 0, 9, 1
    swapped = 0
    for position in range(254, -1, -1):
        bit = scalar >> position & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b = (x2 + z2) % _P, (x2 - z2) % _P
        aa, bb = a * a % _P, b * b % _P
        e = aa - bb
        da, cb = (x3 - z3) * a % _P, (x3 + z3) * b % _P
        x3, z3 = (da + cb) ** 2 % _P, x1 * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swapped:
        x2, z2 = x3, z3
    return x2 * pow(z2, _P - 2, _P) % _P
