"""The HTTP API and the dashboard's files: `create_app` makes the application, from an `ApiContext`."""

from allranks_collector.api.app import create_app
from allranks_collector.api.context import ApiContext, LiveView

__all__ = ["ApiContext", "LiveView", "create_app"]
