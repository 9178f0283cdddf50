"""Who may ask: Host and Origin are checked before anything else, and every answer carries the security headers.

A route that has stricter ones of its own (a run's files) keeps them.

A browser that runs somebody else's page can be made to send requests here (cross-site requests, DNS rebinding). Such
requests name a foreign Origin, or come with a Host name that is not ours: an attacker owns a name, not an address.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from allranks_collector.api.answers import refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def host_name(authority: str) -> str:
    """The name or address in a Host header or an Origin's authority, without port and brackets, lower case."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def is_our_host(authority: str, allowed: Collection[str]) -> bool:
    """Whether a Host header names us: by any address, as localhost, or by an allowed name."""
    name = host_name(authority)
    if name == "localhost" or name.endswith(".localhost") or name in allowed:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_our_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the very place that the Host header does."""
    return urlsplit(origin).netloc.lower() == host.lower()


class Guard:
    """ASGI middleware that refuses foreign Hosts, and foreign Origins on methods that change something.

    Args:
        app: what is guarded.
        allowed_hosts: names, beside localhost and addresses, that the collector goes by.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers_sent = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers_sent.setdefault(name, value)
            await send(message)

        problem = self._problem(scope["method"], headers)
        if problem:
            await refusal(403, problem)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _problem(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if not is_our_host(host, self._allowed):
            return f"the collector does not go by the name {host!r}: add it to allowed_hosts if it should"
        origin = headers.get("origin")
        if method not in SAFE_METHODS and origin is not None and not is_our_origin(origin, host):
            return f"requests that change something are not taken from pages of {origin!r}"
        return ""
