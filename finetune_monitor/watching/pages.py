"""The pages of watched runs, written in a temporary folder and kept up to date while somebody looks at them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread

from finetune_monitor.base.errors import UserError
from finetune_monitor.report.page import write_page
from finetune_monitor.watching.runs import Version, WatchedRun

logger = logging.getLogger(__name__)


WAIT = 5.0
"""Seconds to wait at the end for pages that are being written."""


class LivePage:
    """The page of one run.

    Attributes:
        folder: where it is written; the run itself is only read.
        written: how often it has been written; 0 if there is none yet.
        problem: why it could not be written the last time; "" if it could.
    """

    def __init__(self, run: WatchedRun, folder: Path) -> None:
        self.folder, self.written, self.problem = folder, 0, ""
        self._run = run
        self._shown: Version | None = None
        self._is_writing = Lock()

    def update(self) -> None:
        """Write the page in the background if the run's record has changed; do nothing while that is under way."""
        version = self._run.refresh()
        if version != self._shown and self._is_writing.acquire(blocking=False):
            Thread(target=self._write, args=(version,), daemon=True).start()

    def close(self) -> None:
        """Write no more; wait for a moment if that is under way."""
        self._is_writing.acquire(timeout=WAIT)

    def _write(self, version: Version) -> None:
        try:
            write_page(self.folder, [self._run.folder])
            self.written, self.problem = self.written + 1, ""
        except (UserError, OSError) as error:
            self.problem = str(error)
            logger.warning("%s: cannot write the page: %s", self._run.folder, error)
        finally:
            self._shown = version
            self._is_writing.release()


class LivePages:
    """The pages of all runs that somebody has opened."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._pages, self._lock = folder, dict[str, LivePage](), Lock()

    def of(self, run: WatchedRun) -> LivePage:
        """The page of a run, which is written when first asked for."""
        with self._lock:
            page = self._pages.setdefault(run.id, LivePage(run, self._folder / run.id))
        page.update()
        return page

    def close(self) -> None:
        """Write none of them any more."""
        for page in self._pages.values():
            page.close()


@contextmanager
def live_pages() -> Iterator[LivePages]:
    """Pages in a private temporary folder, which is removed at the end."""
    with TemporaryDirectory(prefix="finetune-monitor-watch-", ignore_cleanup_errors=True) as folder:
        pages = LivePages(Path(folder))
        try:
            yield pages
        finally:
            pages.close()
