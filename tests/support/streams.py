"""Which worker runs which test files: those that mostly wait share one, so that the others keep the cores busy."""

from xdist.scheduler import LoadFileScheduling

WAITING = {
    "tests/faults/test_failing_step_with_workers.py",
    "tests/faults/test_hanging_metric.py",
    "tests/faults/test_private_files.py",
    "tests/monitor/test_two_processes.py",
    "tests/report/test_alarms_in_chromium.py",
    "tests/report/test_deciding_in_chromium.py",
    "tests/report/test_page_in_chromium.py",
    "tests/scoring/test_watch.py",
    "tests/studies/labeling/test_page_in_chromium.py",
    "tests/sweep/test_cluster.py",
    "tests/sweep/test_driver.py",
    "tests/sweep/test_interrupts.py",
    "tests/test_ratings_to_stars.py",
    "tests/watching/test_in_chromium.py",
}
"""Files whose tests wait for browsers, clusters, and processes for most of their time."""

LONG = {
    "tests/commands/test_aesthetic.py",
    "tests/scoring/test_weights.py",
    "tests/test_alarms.py",
    "tests/test_benchmarks.py",
    "tests/test_demo.py",
    "tests/test_wheel.py",
    "tests/training/test_run.py",
    "tests/training/test_unchanged.py",
}
"""Files that take more than a third of a minute: begun early, so that no worker is left alone with one in the end."""


def order(test: str) -> int:
    """By what tests are sorted; an id begins with the file."""
    file = test.partition("::")[0]
    return 0 if file in WAITING else 1 if file in LONG else 2


class Streams(LoadFileScheduling):
    """A file is run by one worker, and so are all that wait."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "waiting" if file in WAITING else file
