"""What can be asked of the database: pure functions `(cursor, …) -> plain values`, for HTTP and the CLI alike.

Times in answers are Unix seconds. A run is found by `find_run`; the functions take the `RunRef` that it gives.
"""

from allranks_collector.queries.curves import DEFAULT_BUCKETS, CurveRequest, metrics, plain
from allranks_collector.queries.export import FORMATS, MEDIA_TYPES, WHAT, export
from allranks_collector.queries.figures import LiveStats, computed_stats
from allranks_collector.queries.files import FileAmbiguous, FileNotStored, find_file, list_files
from allranks_collector.queries.keys import list_keys
from allranks_collector.queries.line_order import LineOrders, TooManyLines
from allranks_collector.queries.logs import LogRequest, list_logs
from allranks_collector.queries.ranks import list_claims, list_ranks
from allranks_collector.queries.records import list_events, list_objects
from allranks_collector.queries.runs import get_run, list_runs, state_of
from allranks_collector.queries.select import (
    BadQuery,
    QueryError,
    RunAmbiguous,
    RunNotFound,
    RunRef,
    TooMuch,
    find_run,
    parse_attempt,
    parse_ranks,
)

__all__ = [
    "DEFAULT_BUCKETS",
    "FORMATS",
    "MEDIA_TYPES",
    "WHAT",
    "BadQuery",
    "CurveRequest",
    "FileAmbiguous",
    "FileNotStored",
    "LineOrders",
    "LiveStats",
    "LogRequest",
    "QueryError",
    "RunAmbiguous",
    "RunNotFound",
    "RunRef",
    "TooManyLines",
    "TooMuch",
    "computed_stats",
    "export",
    "find_file",
    "find_run",
    "get_run",
    "list_claims",
    "list_events",
    "list_files",
    "list_keys",
    "list_logs",
    "list_objects",
    "list_ranks",
    "list_runs",
    "metrics",
    "parse_attempt",
    "parse_ranks",
    "plain",
    "state_of",
]
