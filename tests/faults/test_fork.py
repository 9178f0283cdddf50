"""Forked children go on with the run that they inherited, and disturb nobody."""

from __future__ import annotations

from tests.faults.programs import forking
from tests.support.collector import CollectorProcess
from tests.support.stored import stored_in
from tests.support.training import RUN, Job


def test_what_forked_children_log_is_stored_under_writers_of_their_own(collector: CollectorProcess) -> None:
    # From Python 3.12 on os.fork warns of threads, as the publisher is one.
    quiet = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    with Job(collector.home, collector.url, program="forking", env=quiet).ranks(1) as ranks:
        assert ranks[0].wait() == 0
        collector.await_drained()
        collector.stop()
        children = len(forking.ENDINGS)
        with stored_in(collector.database) as stored:
            counters = stored.counters(RUN)
            assert all(counter.is_unbroken for counter in counters)
            found = sorted((counter.role, len(counter.steps)) for counter in counters)
            expected = [("child", number * forking.EVENTS) for number in range(1, children + 1)]
            assert found == [*expected, ("rank", (children + 1) * forking.EVENTS)]
            assert stored.states(RUN, 0) == ["running", "finished"]
            parents = stored.rows(
                "SELECT DISTINCT json_extract_string(identity, '$.parent') FROM writers WHERE role = 'child'"
            )
            assert parents == stored.rows("SELECT id FROM writers WHERE role = 'rank'")
        assert ranks[0].stderr == ""
