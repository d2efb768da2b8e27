"""The proxy that an exchange is asked through: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as curl and pip read them.

Left to themselves ccxt takes none of them and urllib some. What is on this host is asked straight, whatever they say.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from urllib.parse import urlsplit

from atb.core.errors import UsageError

VARIABLES = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY", "ws": "HTTP_PROXY", "wss": "HTTPS_PROXY"}
SCHEMES = {"ws": "http", "wss": "https"}  # a WebSocket begins as such a request


def proxy_for(url: str) -> str | None:
    """The proxy's URL, with its password where it has one; None: none is meant. UsageError where it cannot be used."""
    parts = urlsplit(url)
    if _is_near(parts.hostname or "") or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    named = urllib.request.getproxies()
    proxy = named.get(SCHEMES.get(parts.scheme, parts.scheme)) or named.get("all")
    return _checked(proxy, VARIABLES.get(parts.scheme, "ALL_PROXY")) if proxy else None


def through(url: str) -> str:
    """For sentences: " (through the proxy host:port)", or nothing."""
    proxy = proxy_for(url)
    return f" (through the proxy {urlsplit(proxy).netloc.rpartition('@')[2]})" if proxy else ""


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens `url` with the standard library, through its proxy and no other."""
    proxy = proxy_for(url)
    return urllib.request.build_opener(urllib.request.ProxyHandler({urlsplit(url).scheme: proxy} if proxy else {}))


def for_requests(url: str) -> dict[str, str] | None:
    """As ccxt's `proxies` and those of requests want to be told."""
    proxy = proxy_for(url)
    return {urlsplit(url).scheme: proxy} if proxy else None


def for_stream(url: str) -> dict[str, str]:
    """What to set of a ccxt.pro client that listens at `url`."""
    proxy = proxy_for(url)
    return {f"{urlsplit(url).scheme}Proxy": proxy} if proxy else {}


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _checked(proxy: str, variable: str) -> str:
    whole = proxy if "://" in proxy else f"http://{proxy}"
    what = f"The proxy that {variable} or ALL_PROXY names"
    hint = f"Write it as http://host:port, or name the exchange's host in NO_PROXY (or unset {variable})."
    try:
        parts = urlsplit(whole)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # no port, no address
        usable = False
    if not usable:
        raise UsageError(f"{what} is not a URL.", hint)
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{what} is of kind {parts.scheme}: atb goes through HTTP proxies.", hint)
    return whole
