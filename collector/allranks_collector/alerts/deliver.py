"""Sends one alert through apprise; a process of its own, so that no service can hold the collector up or grow it.

    python -m allranks_collector.alerts.deliver < {"url", "title", "body", "type"} as JSON

Exit code 0: the service has taken it. Otherwise the last line that is printed says why not, and exit code 78 that to
try again would change nothing. Whoever runs a webhook, or its name in the DNS, must not have this host ask others in
its name: redirects are followed nowhere, and a name that leads back to this host, or any that leads to where only the
machinery of a cloud answers, is not connected to.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from allranks_collector.alerts.targets import FINAL_CODE, Answer

_NOT_INSTALLED = "apprise is not installed where the collector runs: pip install 'allranks[alerts]'"
# What a service answers that may take the same message later; of 400 to 499 all others are its last word.
_LATER = frozenset({408, 425, 429})
# Metadata services of clouds that do not lie in the link-local range.
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))


class _LastWarning(logging.Handler):
    """Keeps what apprise has said last: it raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = " ".join(record.getMessage().split())


def inward(host: str, address: str) -> str:
    """What is wrong with an address to which the name of a target leads, or nothing.

    A loopback address is right where the target was named by it, or as localhost; private ones are, for there may be
    services of one's own.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_link_local or ip in _METADATA:
        return "where only a cloud's metadata and the like answer"
    if (ip.is_loopback or ip.is_unspecified) and not _is_local(host):
        return "which is this host itself (name it as localhost where that is meant)"
    return ""


def _is_local(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def _refuse_inward() -> list[str]:
    """Has no name lead inward, in whichever library it is asked for; what was refused is in the list."""
    met: list[str] = []
    ask = socket.getaddrinfo

    def asked(host: Any, *more: Any, **named: Any) -> Any:
        found = ask(host, *more, **named)
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "localhost")
        for *_, place in found:
            wrong = inward(name, str(place[0]))
            if wrong:
                met.append(f"{name} leads to {place[0]}, {wrong}: refused")
                raise socket.gaierror(socket.EAI_FAIL, met[-1])
        return found

    socket.getaddrinfo = asked
    return met


class _Web:
    """What `requests`, through which most services are reached, has met: no redirect is followed."""

    def __init__(self, requests: Any) -> None:
        self.redirects: list[str] = []
        self.status = 0
        send = requests.Session.send

        def sent(session: Any, *arguments: Any, **named: Any) -> Any:
            response = send(session, *arguments, **named)
            self.status = int(response.status_code)
            return response

        requests.Session.send = sent
        requests.Session.get_redirect_target = self._no_target

    def _no_target(self, response: Any) -> None:
        if response.is_redirect:
            parts = urlsplit(response.headers["location"])
            place = parts.netloc.rpartition("@")[2]
            self.redirects.append(f"{parts.scheme}://{place}" if place else "itself")

    @property
    def is_final(self) -> bool:
        """True where the service has said that it will not take this."""
        return 400 <= self.status < 500 and self.status not in _LATER


def send(url: str, title: str, body: str, kind: str) -> Answer:
    """Sends it; what came of it."""
    try:
        # By name: it is an extra, and nothing else of the collector needs to know of it.
        apprise: Any = importlib.import_module("apprise")
        requests: Any = importlib.import_module("requests")
    except ImportError:
        return Answer(_NOT_INSTALLED, is_final=True)
    said = _LastWarning()
    logging.getLogger("apprise").addHandler(said)
    web, refused = _Web(requests), _refuse_inward()
    sender = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False))
    if not sender.add(url):
        return Answer("apprise knows no service of this address", is_final=True)
    is_sent = sender.notify(body=body or title, title=title, notify_type=apprise.NotifyType(kind))
    if refused:
        return Answer(refused[0], is_final=True)
    if web.redirects:
        return Answer(f"it answers with a redirect to {web.redirects[0]}, which is refused", is_final=True)
    if is_sent:
        return Answer()
    return Answer(said.text or "apprise could not send it, and does not say why", web.is_final)


def main() -> int:
    """Sends what stdin asks for; the exit code and a line on stdout say how that went."""
    asked = json.load(sys.stdin)
    answer = send(asked["url"], asked["title"], asked["body"], asked["type"])
    if not answer.problem:
        return 0
    print(answer.problem)
    return FINAL_CODE if answer.is_final else 1


if __name__ == "__main__":
    sys.exit(main())
