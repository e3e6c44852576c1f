"""The one way out to URLs that other people chose.

A URL is taken apart strictly, its host resolved once, every address looked at, and the connection
made to *that* address, under the host's name in TLS and in `Host`. So no name can lead inside, not
even one that means something else the second time. Nothing here follows a redirect.

`OUTGOING_ALLOWED_HOSTS` names what of the own network may be reached all the same: a host name, an
address or a network. `OUTGOING_PROXY` sends everything else through an egress proxy, which then
resolves names and has to keep this rule itself (as Stripe's smokescreen does).
"""

import base64
import http.client
import ipaddress
import re
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Overdue
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, unquote, urlsplit

from django.conf import settings

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"https": 443, "http": 80}
_STEP_SECONDS = 5.0
_PROXY_PORT = 3128

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_NAME = 253
# By these a browser, and inet_aton, take a host for an IPv4 address, however odd its spelling.
_NUMERIC = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")

# The registries of special addresses (RFC 6890 and successors), whole: what is routed in some of
# them is no web server. And Azure's WireServer, a metadata service at a public address.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24"),
        *("192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",
        # Of 2000::/3, outside of which nothing is public: Teredo and the other protocol
        # assignments, documentation, 6to4, AS112.
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)

# The system's resolver knows no deadline of ours; what waits for it waits here.
_resolver = ThreadPoolExecutor(max_workers=32, thread_name_prefix="resolver")


class Denied(Exception):
    """The URL, or where it leads to, is not allowed; the text says why, without the URL."""


class Unreachable(Exception):
    """Nobody answers there, or not in time; the text says what happened, in a word or two."""


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart: `target` is path and query, `host` lower-case and without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What stands in `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock after which nothing is waited for."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    def left(self, most: float = float("inf")) -> float:
        """Seconds until then, `most` at the most; raises `Unreachable` when it is past."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise Unreachable("timeout")
        return min(seconds, most)


def place_of(url: str) -> Place:
    """The URL taken apart; raises `Denied` for whatever may not be called, as far as that can be
    told without asking the network."""
    if not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise Denied("The URL has characters that have to be percent-encoded.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Denied("That is no URL.") from None
    if parts.scheme not in _PORTS:
        raise Denied("The URL does not begin with https://.")
    if "@" in parts.netloc:
        raise Denied("The URL has a user name or a password in it.")
    host = _host(parts)
    if not _is_named(host):
        _require_usual(parts.scheme, host, port)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port or _PORTS[parts.scheme], target)


def addresses_of(place: Place, deadline: Deadline) -> list[tuple[str, int]]:
    """Where the place is: address and port, each looked at. Raises `Denied` if one of them is not
    allowed, `Unreachable` if there is none."""
    waiting = _resolver.submit(socket.getaddrinfo, place.host, place.port, type=socket.SOCK_STREAM)
    try:
        found = waiting.result(timeout=deadline.left())
    except Overdue:
        raise Unreachable("timeout") from None
    except (OSError, UnicodeError):
        raise Unreachable("its name is unknown") from None
    addresses = [(str(entry[4][0]), int(entry[4][1])) for entry in found]
    if not is_listed(place.host):
        _require_public(address for address, _ in addresses)
    return addresses


def connect(place: Place, deadline: Deadline) -> socket.socket:
    """A connection to the place itself, or through the proxy; raises `Denied`, `Unreachable`."""
    proxy = settings.OUTGOING_PROXY
    if proxy and not _is_named(place.host):
        return _through(proxy, place, deadline)
    return _first(addresses_of(place, deadline), deadline)


def is_public(address: IPAddress) -> bool:
    """Whether it is an address of the Internet's, and none that embeds another."""
    if isinstance(address, ipaddress.IPv6Address):
        is_isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
        if address not in _GLOBAL_UNICAST or is_isatap or address.scope_id is not None:
            return False
    return not any(address in network for network in _NOT_PUBLIC)


def is_listed(host: str) -> bool:
    """Whether `OUTGOING_ALLOWED_HOSTS` has this very name or address."""
    return host in {entry.lower().rstrip(".") for entry in settings.OUTGOING_ALLOWED_HOSTS}


def is_host(entry: str) -> bool:
    """Whether an entry of the setting can match anything: a name, an address, a network."""
    name = entry.lower().rstrip(".")
    return _network(entry) is not None or bool(
        _NAME.fullmatch(name) and not _NUMERIC.fullmatch(name)
    )


def is_proxy(url: str) -> bool:
    """Whether it is the URL of a proxy that is spoken to in plain HTTP."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _host(parts: SplitResult) -> str:
    """The host, as an address in its usual spelling or as a name; raises `Denied`."""
    raw = (parts.hostname or "").removesuffix(".")
    if "[" in parts.netloc:
        try:
            return str(ipaddress.IPv6Address(raw))
        except ValueError:
            raise Denied("The host is no address.") from None
    if _NUMERIC.fullmatch(raw):
        try:
            return str(ipaddress.IPv4Address(raw))
        except ValueError:
            raise Denied("The host is an address in an odd spelling.") from None
    if len(raw) > _LONGEST_NAME or not _NAME.fullmatch(raw):
        raise Denied("The host is no name.")
    return raw


def _require_usual(scheme: str, host: str, port: int | None) -> None:
    """Raise `Denied` unless it is https, on its usual port, of a host on the Internet."""
    if scheme != "https":
        raise Denied("The URL has to begin with https://.")
    if port not in (None, _PORTS["https"]):
        raise Denied("Only port 443 may be called.")
    address = _address(host)
    if address is not None:
        _require_public([host])
    elif "." not in host or host.endswith(tuple(f".{name}" for name in _LOCAL_NAMES)):
        raise Denied("The host is a name of a local network.")


def _is_named(host: str) -> bool:
    """Whether the setting allows the host itself; a name may also lead into an allowed network."""
    return is_listed(host) or _is_allowed(host)


def _is_allowed(text: str) -> bool:
    address = _address(text)
    networks = (_network(entry) for entry in settings.OUTGOING_ALLOWED_HOSTS)
    return address is not None and any(n is not None and address in n for n in networks)


def _require_public(addresses: Iterable[str]) -> None:
    for text in addresses:
        address = _address(text)
        if not _is_allowed(text) and (address is None or not is_public(address)):
            raise Denied("The host leads to an address that is not on the Internet.")


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _first(addresses: Sequence[tuple[str, int]], deadline: Deadline) -> socket.socket:
    """A connection to the first of the addresses that takes one."""
    for address in addresses:
        try:
            return socket.create_connection(address, timeout=deadline.left(_STEP_SECONDS))
        except OSError:
            continue
    raise Unreachable("no connection")


def _through(proxy: str, place: Place, deadline: Deadline) -> socket.socket:
    """A tunnel through the egress proxy: it resolves the name, and judges the addresses."""
    parts = urlsplit(proxy)
    address = (parts.hostname or "", parts.port or _PROXY_PORT)
    with ExitStack() as on_failure:
        try:
            tunnel = socket.create_connection(address, timeout=deadline.left(_STEP_SECONDS))
            on_failure.callback(tunnel.close)
            tunnel.sendall(_request_of_a_tunnel(parts, place))
            with http.client.HTTPResponse(tunnel, method="CONNECT") as response:
                response.begin()
                status = response.status
        except (OSError, http.client.HTTPException):
            raise Unreachable("no connection to the proxy") from None
        if status != HTTPStatus.OK:
            raise Unreachable("the proxy refused")
        on_failure.pop_all()
    return tunnel


def _request_of_a_tunnel(proxy: SplitResult, place: Place) -> bytes:
    to = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    lines = [f"CONNECT {to} HTTP/1.1", f"Host: {to}"]
    if proxy.username is not None:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()
