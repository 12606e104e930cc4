"""Show evaluations as a page next to the record, updated after each evaluation so that it can be watched."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from finetune_monitor.base.paths import Containment
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.report.page import write_page
from finetune_monitor.sinks import RunInfo

logger = logging.getLogger(__name__)

FOLDER = "page"


class ReportPage:
    """Writes `<output_dir>/page` from the record; open its `index.html`, which updates itself.

    If the page cannot be written, for example because the disk is full, a warning is logged, and the next evaluation
    tries again.
    """

    name = "report"

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set: none."""

    def start(self, run: RunInfo) -> None:
        """Write the page of the existing record; when resuming, it loses what the record has dropped."""
        self._output_dir = run.output_dir
        self._write()

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Add one evaluation, as recorded; its images need not be read again."""
        inside = Containment(self._output_dir)
        pairs = zip(evaluation.images, images, strict=True)
        known = ((inside.path(scored.file), image) for scored, image in pairs if image is not None)
        self._write({path: image for path, image in known if path is not None and image.mode == "RGB"})

    def close(self, summary: RunSummary) -> None:
        """Add why the run ended."""
        self._write()

    def _write(self, decoded: Mapping[Path, Image] | None = None) -> None:
        run_dir: Path = self._output_dir
        try:
            write_page(run_dir / FOLDER, [run_dir], decoded=decoded)
        except OSError as error:
            run, page = (shlex.quote(str(folder)) for folder in (run_dir, run_dir / FOLDER))
            again = f"the next evaluation tries again, or run: finetune-monitor report {run} -o {page}"
            logger.warning("%s: cannot write the page (%s); %s", run_dir / FOLDER, error.strerror, again)
