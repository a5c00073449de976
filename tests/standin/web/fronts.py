"""Pages that come instead of WhatsApp Web: errors, logins of a network, copies that went bad."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Front:
    """An answer in place of the page."""

    status: str = "200 OK"
    body: bytes = b""
    location: str = ""
    """Where the answer sends the browser; "" = nowhere."""
    silent: bool = False
    """The connection is taken, and nothing is ever answered."""

    @property
    def headers(self) -> str:
        return f"Location: {self.location}\r\n" if self.location else ""


def _page(title: str, body: str) -> bytes:
    head = f"<!doctype html><html><head><title>{title}</title></head>"
    return f"{head}<body>{body}</body></html>\n".encode()


HTTP_ERROR = Front("500 Internal Server Error", _page("Error 500", "<h1>Something went wrong</h1>"))
PORTAL = Front(
    body=_page(
        "Guest network",
        "<h1>Welcome</h1><form action='/login'><input name='room'><button>Log in</button></form>",
    )
)
SILENT = Front(silent=True)

KEEPER = b"""
// A service worker that answers for the page with a copy that went bad.
self.addEventListener('install', (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (event.request.mode !== 'navigate') return;
  event.respondWith(new Response(
    '<!doctype html><html><head><title>WhatsApp Web</title></head><body>old</body></html>',
    { headers: { 'content-type': 'text/html' } }));
});
"""


def elsewhere(url: str) -> Front:
    return Front("302 Found", location=url)
