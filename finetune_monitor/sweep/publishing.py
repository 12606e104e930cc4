"""The sweep's table and page, rewritten whenever a trial ends, without delaying the trials."""

import logging
import threading
from typing import TYPE_CHECKING

from finetune_monitor.record.run_directory import RUN
from finetune_monitor.record.sweep_directory import SweepState
from finetune_monitor.sweep.ledger import Ledger

if TYPE_CHECKING:
    from finetune_monitor.report.sweep_answer.answer import Answer

logger = logging.getLogger(__name__)

PAGE = "page"


class Publisher:
    """Writes in its own thread, one state at a time and always the newest."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._wanted, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __call__(self) -> None:
        """Note that something has changed."""
        self._wanted.set()

    def close(self, seconds: float) -> None:
        """Stop writing, after waiting for the current write."""
        self._closed = True
        self._wanted.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while self._wanted.wait() and not self._closed:
            self._wanted.clear()
            publish(self._ledger.state)


def publish(state: SweepState) -> "Answer | None":
    """Write the table and the page; a failure is only a warning, as the trials' own records hold everything.

    Returns:
        The answer; None if that failed.
    """
    answer = None
    try:
        from finetune_monitor.report.page import write_page
        from finetune_monitor.report.sweep_answer.answer import answer_of
        from finetune_monitor.report.sweep_answer.results import read_results
        from finetune_monitor.report.sweep_answer.table_csv import write_csv

        results = read_results(state)
        answer = answer_of(results, str(state.folder))
        write_csv(results, state.folder)
        runs = [place for place in map(state.run_dir, state.trials) if (place / RUN).exists()]
        if runs:
            write_page(state.folder / PAGE, runs, answer.to_json())
    except Exception as error:
        logger.warning("%s: cannot write the sweep's table and page: %r", state.folder, error)
    return answer
