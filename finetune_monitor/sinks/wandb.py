"""Show evaluations in Weights & Biases: curves, the grid, and a table with one row per image."""

import importlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.paths import Containment
from finetune_monitor.base.redaction import redacted
from finetune_monitor.base.text import caption
from finetune_monitor.record.evaluation import Evaluation, RunSummary, ScoredImage, measured_means
from finetune_monitor.sinks import RunInfo, front_so_far, scalars
from finetune_monitor.sinks.contact_sheet import TAG as PHOTOS
from finetune_monitor.sinks.contact_sheet import contact_sheet_of
from finetune_monitor.sinks.grid_image import caption_text, grid_image
from finetune_monitor.sinks.wandb_opening import (
    DEFAULT_MODE,
    RUN_ID_FILE,
    STEP,
    Mode,
    check_login,
    import_wandb,
    init_arguments,
    staging_inside,
)
from finetune_monitor.stats.estimate import plain

if TYPE_CHECKING:
    from accelerate.tracking import WandBTracker

logger = logging.getLogger(__name__)

MEDIA = ("grid", "prompts/*")
"""The keys of images; the panels' sliders have the step that is defined for them."""

LONGEST_KEY = 60
"""Characters of a prompt in a key."""

TITLE_CHARACTERS = 63
"""Length of an alert's title, which must be shorter than 64 for W&B."""


class WandbSink:
    """Writes to its own run in `<output_dir>/wandb`, or to a given run.

    Before the first evaluation, the contact sheet of a training's photos is logged as `photos`.
    Each evaluation logs its scores, `interval/NAME/low` and `high`, `ceiling/NAME`, `alarm/NAME` (the level),
    `monitor/seconds_*`, `monitor/overhead`, the image `grid`, and the images of each prompt as `prompts/00_PROMPT`,
    with their scores as captions. The slider of these panels has the training steps. From the second evaluation on,
    `pareto` is a scatter plot of two scores, with one point per step; its table names the steps that no other step
    beats in both. The end logs the table `images` with one row per image of all evaluations, so every image is written
    twice, however long the run, and sets `verdict` in the summary. Unmeasured values have no key. An alarm that did not
    sound at the previous evaluation is also a W&B alert, which W&B sends by email or Slack according to the user's
    settings; an offline alert waits for `wandb sync`.

    Args:
        mode: "online" sends to W&B, "offline" writes files for `wandb sync`, "disabled" does nothing. WANDB_MODE and
            WANDB_DISABLED in the environment can only make it more private. For arguments that are None, the other
            WANDB_* variables apply.
        project: the W&B project; finetune-monitor if None and WANDB_PROJECT is not set.
        name: the run's name; that of the output_dir if None and WANDB_NAME is not set.
        entity: a team or user; the account's default if None.
        images: False keeps every image out of W&B; scores and prompts are still written.
        group: runs with the same group appear together.
        tags: words to find the run by.
        job_type: the kind of run, such as train.
        notes: text about the run; the verdict and the notices that belong to the scores follow it.
        run: a wandb run to write to; it stays open at the end, and the arguments other than `images` are ignored.

    Raises:
        UserError: wandb is not installed, or finds no login for mode "online".
    """

    name = "wandb"

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        mode: Mode = DEFAULT_MODE
        project: str | None = None
        entity: str | None = None
        name: str | None = None
        images: bool = True
        group: str | None = None
        tags: Sequence[str] | None = None
        job_type: str | None = None
        notes: str | None = None

    def __init__(
        self,
        mode: Mode = Options.mode,
        project: str | None = Options.project,
        name: str | None = Options.name,
        entity: str | None = Options.entity,
        images: bool = Options.images,
        group: str | None = Options.group,
        tags: Sequence[str] | None = Options.tags,
        job_type: str | None = Options.job_type,
        notes: str | None = Options.notes,
        run: Any = None,
    ):
        self._wandb = import_wandb()
        if run is None:
            self.check_options({"mode": mode})
        self._options: dict[str, Any] = {"mode": mode, "project": project, "name": name, "entity": entity}
        self._options |= {"group": group, "tags": tags, "job_type": job_type, "notes": notes}
        self._images = images
        self._given = run
        self._defined: set[str] = set()

    @staticmethod
    def check() -> None:
        """Import wandb, with what it imports to open a run: among torch's modules, that would take seven times as long.

        Raises:
            UserError: it is not installed.
        """
        import_wandb()
        with suppress(ImportError):
            importlib.import_module("wandb.sdk.launch.inputs.internal")

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """Check that wandb finds a login if something is to be sent; the network is not asked whether it is valid.

        Raises:
            UserError: it finds none, or the mode is unknown.
        """
        check_login(options.get("mode", DEFAULT_MODE))

    @classmethod
    def tracker(cls, output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> "WandBTracker":
        """A tracker with the run that the sink would open."""
        from finetune_monitor.sinks.wandb_tracker import StepTracker

        import_wandb()
        arguments = init_arguments(output_dir, {k: v for k, v in options.items() if k != "images"}, resume_step)
        with staging_inside(output_dir):
            return StepTracker(arguments.pop("project", None), **arguments)

    @classmethod
    def on_tracker(cls, tracker: "WandBTracker", options: Mapping[str, Any]) -> "WandbSink":
        """A sink with the tracker's run."""
        return cls(run=tracker.run, images=options.get("images", cls.Options.images))

    def start(self, run: RunInfo) -> None:
        """Open the run, or reopen the same run when resuming."""
        self._run_info, self._sounding, self._history = run, run.sounding, run.evaluations
        self._run = self._given
        if self._run is None:
            with staging_inside(run.output_dir):
                self._run = self._wandb.init(**init_arguments(run.output_dir, self._options, run.resume_step))
        write_atomic(run.output_dir / RUN_ID_FILE, self._run.id.encode())
        self._run.config.update(plain(redacted(run.hparams)), allow_val_change=True)
        self._note(run.notices)
        self._run.define_metric(STEP, hidden=True)
        for key in MEDIA:
            self._run.define_metric(key, step_metric=STEP)
        self._log_photos(run)

    def _log_photos(self, run: RunInfo) -> None:
        """Log the contact sheet of the photos of a new run."""
        if self._images and run.resume_step is None and (sheet := contact_sheet_of(run.output_dir)) is not None:
            with staging_inside(run.output_dir):
                self._run.log({STEP: 0, PHOTOS: self._wandb.Image(sheet, file_type="jpg")})

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Log one evaluation in one call, so that wandb's own step increases by one."""
        info = self._run_info
        found: dict[str, Any] = scalars(evaluation, info)
        self._define(found)
        with staging_inside(info.output_dir):
            if evaluation.images and self._images:
                found |= self._media(evaluation, images)
            self._run.log({STEP: evaluation.step, **found, **self._pareto(evaluation)})
        self._alert(evaluation)

    def close(self, summary: RunSummary) -> None:
        """Log the table of all evaluations, and how the run ended."""
        if any(evaluation.images for evaluation in summary.evaluations):
            with staging_inside(self._run_info.output_dir):
                self._run.log({"images": self._table(summary.evaluations)})
        best = measured_means(summary.evaluations, summary.best_step)
        ended: dict[str, Any] = {f"best/{name}": best[name] for name in self._run_info.metrics if name in best}
        ended |= {"best/step": summary.best_step, "best/smoothed": summary.best_score}
        ended |= {"stop_reason": summary.reason and str(summary.reason), "stop_why": summary.why}
        ended |= {"verdict": " ".join(summary.verdict) or None}
        self._run.summary.update({key: value for key, value in ended.items() if value is not None})
        self._note(summary.verdict)
        if self._given is None:
            self._run.finish()

    def _note(self, sentences: Sequence[str]) -> None:
        """Add sentences to the run's notes."""
        said = self._run.notes or ""
        new = [each for each in sentences if each not in said]
        if new and not self._run.disabled:
            self._run.notes = "\n".join(filter(None, [said, *new]))

    def _alert(self, evaluation: Evaluation) -> None:
        """Send one alert for each alarm that starts to sound, but not again after an interruption."""
        for name, words in self._run_info.new_alarms(evaluation, self._sounding).items():
            title = f"alarm at step {evaluation.step}: {name}"[:TITLE_CHARACTERS]
            self._run.alert(title=title, text=words, level=self._wandb.AlertLevel.WARN)
        self._sounding = evaluation.alarms

    def _pareto(self, evaluation: Evaluation) -> dict[str, Any]:
        """The scatter plot of two scores, if there are two steps to compare."""
        self._history = (*self._history, evaluation)
        front = front_so_far(self._history, self._run_info)
        if front is None:
            return {}
        rows = [[step, *pair, step in front.steps] for step, pair in front.points.items()]
        table = self._wandb.Table(columns=["step", *front.columns, "pareto"], data=rows)
        title = f"Pareto steps: {', '.join(map(str, front.steps))}"
        return {"pareto": self._wandb.plot.scatter(table, *front.columns, title=title)}

    def _define(self, keys: Mapping[str, float]) -> None:
        """Make the training step the x-axis of new curves; other curves of a shared run keep theirs."""
        for key in keys.keys() - self._defined:
            self._run.define_metric(key, step_metric=STEP)
        self._defined |= keys.keys()

    def _table(self, evaluations: Sequence[Evaluation]) -> Any:
        scores = list(dict.fromkeys(name for e in evaluations for image in e.images for name in image.scores))
        column = ["image"] if self._images else []
        rows = [
            [e.step, image.cell.id, caption(image.cell.prompt), image.cell.seed]
            + ([self._image(image)] if self._images else [])
            + [_number(image.scores.get(name, math.nan)) for name in scores]
            for e in evaluations
            for image in e.images
        ]
        return self._wandb.Table(columns=["step", "cell", "prompt", "seed", *column, *scores], data=rows)

    def _media(self, evaluation: Evaluation, images: Sequence[Image | None]) -> dict[str, Any]:
        """The grid as one image, and the images of each prompt."""
        info = self._run_info
        grid = grid_image(evaluation, images, info.columns, info.notices, info.best_metric)
        rows: dict[str, list[Any]] = {}
        for image in evaluation.images:
            row = rows.setdefault(image.cell.prompt, [])
            if (found := self._image(image, caption_text(image, info.columns))) is not None:
                row.append(found)
        prompts = {_prompt_key(index, prompt): row for index, (prompt, row) in enumerate(rows.items()) if row}
        return {"grid": self._wandb.Image(grid, file_type="jpg"), **prompts}

    def _image(self, image: ScoredImage, text: str | None = None) -> Any:
        """An image by its recorded file, which wandb copies instead of encoding the image again."""
        path = Containment(self._run_info.output_dir).path(image.file)
        return self._wandb.Image(str(path), caption=text) if path is not None and path.exists() else None


def _prompt_key(index: int, prompt: str) -> str:
    """The key of a prompt's images: W&B's pages work only with letters, digits, and underscores."""
    return f"prompts/{index:02d}_{re.sub('[^A-Za-z0-9]+', '_', prompt)[:LONGEST_KEY].strip('_')}".rstrip("_")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
