"""Sends one alert through apprise; a process of its own, so that no service can hold the collector up or grow it.

    python -m allranks_collector.alerts.deliver < {"url", "title", "body", "type"} as JSON

Exit code 0: the service has taken it. Otherwise the last line that is printed says why not. Redirects are followed
nowhere: whoever runs a webhook must not have this host ask others in its name.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Any
from urllib.parse import urlsplit

_NOT_INSTALLED = "apprise is not installed where the collector runs: pip install 'allranks[alerts]'"


class _LastWarning(logging.Handler):
    """Keeps what apprise has said last: it raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = " ".join(record.getMessage().split())


def _refuse_redirects(requests: Any) -> list[str]:
    """Has `requests` follow no redirect; where they would have led is in the list that is returned."""
    met: list[str] = []

    def no_target(_session: Any, response: Any) -> None:
        if response.is_redirect:
            parts = urlsplit(response.headers["location"])
            met.append(f"{parts.scheme}://{parts.netloc}" if parts.netloc else "itself")

    requests.Session.get_redirect_target = no_target
    return met


def send(url: str, title: str, body: str, kind: str) -> str:
    """Sends it; why that could not be done, or nothing."""
    try:
        # By name: it is an extra, and nothing else of the collector needs to know of it.
        apprise: Any = importlib.import_module("apprise")
        requests: Any = importlib.import_module("requests")
    except ImportError:
        return _NOT_INSTALLED
    said = _LastWarning()
    logging.getLogger("apprise").addHandler(said)
    redirects = _refuse_redirects(requests)
    sender = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False))
    if not sender.add(url):
        return "apprise knows no service of this address"
    is_sent = sender.notify(body=body or title, title=title, notify_type=apprise.NotifyType(kind))
    if redirects:
        return f"it answers with a redirect to {redirects[0]}, which is refused"
    return "" if is_sent else said.text or "apprise could not send it, and does not say why"


def main() -> int:
    asked = json.load(sys.stdin)
    problem = send(asked["url"], asked["title"], asked["body"], asked["type"])
    if problem:
        print(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
