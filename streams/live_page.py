"""The live page over HTTP: the page itself, its files, the board as JSON and as a stream of events."""

import gzip
import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from aiohttp import web

from streams.audience import GREETING, GZIP_HEAD, MOST_VIEWERS, Audience, Event, Viewer
from streams.board import BoardReader, connect
from streams.clock import Clock
from streams.settings import Settings

FOLDER: Final = Path(__file__).with_name("page")
INDEX: Final = "index.html"
RETRY_AFTER_SECONDS: Final = 10
SECURITY: Final = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)
"""What every answer of the page says: nothing from elsewhere, nothing for elsewhere."""

CONTENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".png": "image/png",
        ".ico": "image/x-icon",
        ".woff2": "font/woff2",
    }
)
"""Only files that end in one of these are served."""

_COMPRESSED: Final = (".css", ".html", ".js", ".mjs", ".json", ".svg", ".txt")
_WORTHWHILE: Final = 0.9
_LOCAL_NAMES: Final = frozenset({"", "localhost"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageFile(NamedTuple):
    """A file as it is sent; `packed` is None where compression does not pay."""

    body: bytes
    packed: bytes | None
    content_type: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> "PageFile":
        """Return the file at `path`."""
        body = path.read_bytes()
        packed = gzip.compress(body, 9, mtime=0) if path.suffix in _COMPRESSED else None
        if packed is not None and len(packed) > _WORTHWHILE * len(body):
            packed = None
        tag = hashlib.blake2b(body, digest_size=8).hexdigest()
        return cls(body, packed, CONTENT_TYPES[path.suffix], tag)


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Return the files that are served, by name; there are no others for a path to lead to."""
    return {
        path.name: PageFile.read(path)
        for path in sorted(folder.glob("*"))
        if path.suffix in CONTENT_TYPES and path.is_file()
    }


class LivePage:
    """The routes of the page.

    Args:
        settings: Of the deployment: where Redis is, and where the page is served.
        clock: Paces reading and tells the age of numbers.
        most_viewers: How many may watch at a time.
    """

    def __init__(self, settings: Settings, clock: Clock, most_viewers: int = MOST_VIEWERS) -> None:
        client = connect(settings.redis.url) if settings.redis.is_on else None
        self.audience = Audience(BoardReader(settings, clock, client), clock, most_viewers)
        self._files = page_files()
        self._hosts = frozenset(settings.metrics.hosts)
        self._is_guarded = bool(self._hosts) or is_local(settings.metrics.host)

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to an HTTP server."""
        found: Iterable[tuple[str, Handler, bool]] = (
            ("/", partial(self._file, name=INDEX), True),
            ("/page/{name}", self._named_file, True),
            ("/board", self._board, True),
            # Who asks for the head of an endless stream would wait for ever.
            ("/live", self._live, False),
            # Browsers ask for it unless a page names another one.
            ("/favicon.ico", self._icon, True),
        )
        return [
            web.get(path, partial(self._guarded, handler), allow_head=has_head)
            for path, handler, has_head in found
        ]

    async def stop(self) -> None:
        """Send every viewer away."""
        await self.audience.stop()

    # ------------------------------------------------------------------------- answers

    async def _guarded(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Answer unless the request came by a name that is not meant for this machine.

        A page elsewhere may let its own name point here, and read as if it were ours.
        """
        if self._is_guarded and not self._is_meant(host_of(request.host)):
            text = (
                f"host: expected localhost or a name of metrics.hosts, got {request.host:.80};"
                " add it to LEADPULSE_METRICS_HOSTS to be asked by it\n"
            )
            return web.Response(text=text, status=421, headers=SECURITY)
        return await handler(request)

    def _is_meant(self, host: str) -> bool:
        # Nobody can let an address point elsewhere, so one that is listened at is as good as a name.
        is_address = bool(self._hosts) and _address_of(host) is not None
        return is_local(host) or host.rstrip(".").lower() in self._hosts or is_address

    async def _named_file(self, request: web.Request) -> web.StreamResponse:
        return await self._file(request, request.match_info["name"])

    async def _icon(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers=SECURITY)

    async def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        found = self._files.get(name)
        if found is None:
            return web.Response(text="no such file\n", status=404, headers=SECURITY)
        headers = {**SECURITY, "Cache-Control": "no-cache", "ETag": f'"{found.tag}"'}
        headers["Vary"] = "Accept-Encoding"
        if any(tag.value in (found.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = found.content_type
        if found.packed is None or not _takes_gzip(request):
            return web.Response(body=found.body, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=found.packed, headers=headers)

    async def _board(self, request: web.Request) -> web.StreamResponse:
        document = await self.audience.document()
        headers = {**SECURITY, "Cache-Control": "no-store", "Content-Type": "application/json"}
        if not _takes_gzip(request):
            return web.Response(body=document.body, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=document.packed, headers=headers)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        viewer = Viewer(lambda: _is_gone(request), lambda: _cut(request))
        if not self.audience.join(viewer):
            text = "viewers: expected fewer at a time; try again later\n"
            headers = {**SECURITY, "Retry-After": str(RETRY_AFTER_SECONDS)}
            return web.Response(text=text, status=503, headers=headers)
        try:
            return await self._stream(request, viewer)
        finally:
            self.audience.leave(viewer)

    @staticmethod
    async def _stream(request: web.Request, viewer: Viewer) -> web.StreamResponse:
        is_packed = _takes_gzip(request)
        headers = {
            **SECURITY,
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            # Proxies of the nginx kind would collect events for a while.
            "X-Accel-Buffering": "no",
        }
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(headers=headers)
        event: Event | None = GREETING
        try:
            await response.prepare(request)
            if is_packed:
                await response.write(GZIP_HEAD)
            while event is not None:
                await response.write(event.deflated if is_packed else event.text)
                event = await viewer.next()
        except ConnectionError:
            # Somebody closed the page.
            pass
        return response


# ----------------------------------------------------------------------------- requests


def host_of(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] or host if host.rpartition(":")[2].isdigit() else host


def is_local(host: str) -> bool:
    """Tell whether a name or address can only be meant for this machine."""
    name = host.rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    address = _address_of(name)
    return address is not None and address.is_loopback


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _takes_gzip(request: web.Request) -> bool:
    parts = request.headers.get("Accept-Encoding", "").replace(" ", "").split(",")
    return "gzip" in parts


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
