"""Shows evaluations as a page beside the record, written anew after each so that it can be watched."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.report.page import write_page
from finetune_monitor.sinks import RunInfo

logger = logging.getLogger(__name__)

FOLDER = "page"


class ReportPage:
    """Writes `<output_dir>/page` from the record; open its `index.html`, which shows what is new by itself.

    A page that cannot be written for now, on a full disk say, is a warning; the next evaluation writes it again.
    """

    name = "report"

    @dataclass(frozen=True)
    class Options:
        """What a config may set: nothing."""

    def start(self, run: RunInfo) -> None:
        """Write the page of what is recorded already; on a resume it loses what the record has dropped."""
        self._output_dir = run.output_dir
        self._write()

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Add one evaluation, as the record has it."""
        self._write()

    def close(self, summary: RunSummary) -> None:
        """Add why the run ended."""
        self._write()

    def _write(self) -> None:
        run_dir: Path = self._output_dir
        try:
            write_page(run_dir / FOLDER, [run_dir])
        except OSError as error:
            again = f"the next evaluation tries again, as does: finetune-monitor report {run_dir} -o {run_dir / FOLDER}"
            logger.warning("%s: could not be written (%s); %s", run_dir / FOLDER, error.strerror, again)
