"""Certificates for the stand-in: good ones, and each kind that must be refused."""

import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

AUTHORITY = """
[ca]
default_ca = stand_in
[stand_in]
database = index.txt
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
HERE = "subjectAltName=DNS:localhost,IP:127.0.0.1"
DAY = 86400


@dataclass(frozen=True)
class Certificates:
    """An authority of our own with its certificates, and one without a signature of it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder)
        (folder / "authority.cnf").write_text(AUTHORITY)
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        own = ("req", "-x509", *KEY, "-days", "2")
        made._run(*own, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=stand-in authority")
        made._run(
            *own, "-keyout", "self.key", "-out", "self.pem", "-subj", "/CN=x", "-addext", HERE
        )
        made._sign("good", HERE, -DAY, DAY)
        made._sign("fresh", HERE, -DAY, DAY)
        made._sign("other", "subjectAltName=DNS:elsewhere.example", -DAY, DAY)
        made._sign("expired", HERE, -3 * DAY, -2 * DAY)
        return made

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def context(self, which: str) -> ssl.SSLContext:
        """`good`, `self` (signed by itself), `other` (another name) or `expired`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{which}.pem", self.folder / f"{which}.key")
        return context

    def _sign(self, which: str, name: str, begins: float, ends: float) -> None:
        asked = f"{which}.csr"
        self._run(
            "req", *KEY, "-keyout", f"{which}.key", "-out", asked, "-subj", "/CN=x", "-addext", name
        )
        since, until = (
            time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))
            for seconds in (begins, ends)
        )
        self._run(
            *("ca", "-batch", "-notext", "-config", "authority.cnf", "-in", asked),
            *("-out", f"{which}.pem", "-startdate", since, "-enddate", until),
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30
        )
