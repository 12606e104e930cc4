"""Check for everything that could make a run fail, before anything slow starts, and report all problems together."""

import logging
import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import torch
from diffusers import DDPMScheduler
from PIL.Image import Image

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import make_private
from finetune_monitor.base.images import list_images
from finetune_monitor.base.redaction import redacted
from finetune_monitor.metrics import Descriptions, Metric, RunContext
from finetune_monitor.metrics.reference_faces import shared_reader
from finetune_monitor.metrics.starred import Starred
from finetune_monitor.metrics.thresholds import Thresholds, read_thresholds
from finetune_monitor.models.export import notice_of
from finetune_monitor.models.recognizers import EMBEDDED
from finetune_monitor.monitor.evaluator import check_images_fit
from finetune_monitor.monitor.keeping import check_measured, most_kept, resolved_keep
from finetune_monitor.monitor.stopping import check_rules, not_described
from finetune_monitor.record.columns import stars_of
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import LAST, WEIGHTS
from finetune_monitor.record.run_directory import CONFIG, RUN, check_no_sweep, check_places, lock, taking
from finetune_monitor.record.run_record import check_resume, described_grid
from finetune_monitor.rendering.schedulers import own_scheduler
from finetune_monitor.stats.estimate import plain
from finetune_monitor.training import checkpoints
from finetune_monitor.training.checkpoints import Checkpoint
from finetune_monitor.training.compiling import NOT_ASKED, Compiling, decide
from finetune_monitor.training.config import Config, DataConfig, MonitorConfig, recorded_config
from finetune_monitor.training.early_warnings import about_captions, about_config
from finetune_monitor.training.looking import look, show
from finetune_monitor.training.loop import CHECKPOINTS, identity
from finetune_monitor.training.optimizers import STATE_SIZE, check_optimizer
from finetune_monitor.training.own import classes_of, make_metric, options_in
from finetune_monitor.training.photo_folder import passed_over_in
from finetune_monitor.training.photos import ChosenPhotos, TrainingPhoto, choose_photos
from finetune_monitor.training.registry import METRICS, RULES, SINKS
from finetune_monitor.training.survey import Survey

if TYPE_CHECKING:
    from finetune_monitor.models.face_reader import FaceReader

logger = logging.getLogger(__name__)

T = TypeVar("T")

GIB = 2**30

MORE_EXPORTS = 2
"""Exports on disk besides those of the steps that are kept (`best/` is a link): the one being written, and the last."""


@dataclass(frozen=True)
class RunInputs:
    """The external inputs of a run, located and loaded.

    model: the pipeline's file, folder, or hub id.
    photos: the training photos of the person, with their crops.
    survey: what the model will see of them.
    faces: found and embedded the faces for it; None if none were searched.
    resume_step: the step from which the record resumes; None for a new one.
    compiling: whether the UNet is compiled.
    decoded: training photos that need not be read again.
    """

    model: str | Path
    photos: list[TrainingPhoto]
    metrics: list[Metric]
    checkpoint: Checkpoint | None
    resume_step: int | None
    survey: Survey | None = None
    faces: "FaceReader | None" = None
    compiling: Compiling = NOT_ASKED
    decoded: dict[Path, Image] = field(default_factory=dict)


@dataclass
class Attempts:
    """Continues after a problem, so that all problems are reported together."""

    problems: list[str]

    def __call__(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except UserError as error:
            self.problems.append(str(error).replace("\n", "\n    "))
            return None


def find_inputs(config: Config, device: torch.device, held: ExitStack, problems: list[str]) -> RunInputs:
    """Lock the run directory, read the photos, find the model, and load the metrics, on every process.

    Args:
        held: receives the directory's lock.
        problems: problems found earlier.

    Raises:
        UserError: lists everything that is missing or wrong.
    """
    attempt = Attempts(problems)
    if distributed.is_main():
        _say_collisions()
        attempt(lambda: held.enter_context(_take(config.output_dir)))
    chosen = attempt(lambda: choose_photos(config.data))
    if chosen and distributed.is_main():
        _say_passed_over(config.data)
    model = attempt(lambda: _find_model(config))
    problems += config.base_model.find_parts()
    checkpoint = attempt(lambda: checkpoints.find(config.output_dir / CHECKPOINTS, config.train.resume))
    run = _context(config, chosen, device)
    reader = attempt(lambda: _face_reader(config, run))
    seen = attempt(lambda: look(config, chosen, run, reader, checkpoint is not None)) if chosen else None
    squares = distributed.gather(seen.squares if seen else {})[0]
    run = replace(run, photos=run.photos if seen else None, squares=squares)
    before = len(problems)
    metrics = _metrics(config, run, attempt) if config.monitor.enabled else []
    are_made = seen is not None and len(problems) == before
    _check_choices(config, metrics if are_made else [], device, attempt)
    photos = chosen.described(config.data.instance_prompt, squares) if chosen else []
    if checkpoint is not None and seen is not None:
        attempt(partial(checkpoints.check_identity, checkpoint, identity(config, photos)))
    resume_step = attempt(lambda: _resume_step(config, checkpoint, metrics))
    compiling = attempt(lambda: _compiling(config, device, checkpoint))
    everyones = dict.fromkeys(problem for found in distributed.gather(attempt.problems) for problem in found)
    all_problems(list(everyones), "the run cannot start:")
    assert model is not None
    assert seen is not None
    assert compiling is not None
    if distributed.is_main():
        show(config.output_dir, seen.survey)
        for warning in (*about_captions(config, photos), *about_config(config)):
            logger.warning(warning)
    return RunInputs(model, photos, metrics, checkpoint, resume_step, seen.survey, reader, compiling, seen.decoded)


def _check_choices(config: Config, metrics: list[Metric], device: torch.device, attempt: Attempts) -> None:
    """Check what needs no model: sampler, rules, sinks, the grid's memory, and optimizer.

    Args:
        metrics: empty if there are none to check the rules against.
    """
    attempt(lambda: _check_sampler(config))
    if metrics:
        attempt(lambda: _check_rules(config, metrics))
    for name, kind in classes_of(SINKS, config.monitor.sinks).items():
        attempt(getattr(kind, "check", lambda: None))
        if hasattr(kind, "check_options"):
            attempt(partial(kind.check_options, options_in(config.monitor.sinks.chosen[name])))
    attempt(lambda: check_images_fit(len(config.prompt_grid.cells), (config.data.resolution, config.data.resolution)))
    attempt(lambda: check_optimizer(config.train.optimizer, device))


def _compiling(config: Config, device: torch.device, checkpoint: Checkpoint | None) -> Compiling:
    """Whether to compile; a resumed run continues as it was begun.

    Raises:
        UserError: `train.compile` is true, and something is missing.
    """
    recorded = config.output_dir / CONFIG
    begun = recorded_config(recorded)[0].train.compile if checkpoint is not None and recorded.exists() else None
    steps = config.train.max_steps - (checkpoint.step if checkpoint is not None else 0)
    return decide(config.train.compile, device, steps, begun if isinstance(begun, bool) else None)


def _say_collisions() -> None:
    """Say which names of classes elsewhere are those of ours."""
    for collision in (*METRICS.collisions(), *SINKS.collisions(), *RULES.collisions()):
        logger.warning(collision)


def _say_passed_over(data: DataConfig) -> None:
    """Say which files in the folders of photos are not used."""
    folders = [data.instance_images, *([data.held_out] if isinstance(data.held_out, Path) else [])]
    for others in chain.from_iterable(map(passed_over_in, folders)):
        logger.warning(others)


def _context(config: Config, chosen: ChosenPhotos | None, device: torch.device) -> RunContext:
    """What the metrics may use, before the photos were looked at."""
    return RunContext(
        chosen.training if chosen else None,
        chosen.held_out if chosen else [],
        device,
        config.prompt_grid.prompts,
        config.monitor.metrics.chosen,
        _others(config),
        config.data.instance_prompt,
        chosen.captions if chosen else {},
    )


def _metrics(config: Config, run: RunContext, attempt: Attempts) -> list[Metric]:
    """The metrics that the config names."""
    chosen, kinds = config.monitor.metrics.chosen, classes_of(METRICS, config.monitor.metrics)
    found = [attempt(partial(make_metric, kind, chosen[name], run)) for name, kind in kinds.items()]
    return with_stars(config.monitor, [metric for metric in found if metric is not None], attempt)


def _face_reader(config: Config, run: RunContext) -> "FaceReader | None":
    """What finds the faces in the photos: the reader of the face metrics, or one of its own; None if none is needed.

    Raises:
        UserError: the recognizer is not available.
    """
    measures_faces = config.monitor.enabled and "face_similarity" in config.monitor.metrics.chosen
    if not measures_faces and config.data.crop == "center":
        return None
    return shared_reader(None if measures_faces else EMBEDDED, run)


def _others(config: Config) -> Path | None:
    """The folder of class images, if they exist or will be generated."""
    folder = config.data.class_images
    if folder is None or config.prior_preservation:
        return folder
    try:
        list_images(folder)
    except UserError:
        return None
    return folder


def with_stars(monitor: MonitorConfig, metrics: list[Metric], attempt: Attempts) -> list[Metric]:
    """The metrics, with stars for those in the thresholds file."""
    found = attempt(lambda: _thresholds(monitor)) or {}
    graded = [metric for metric in metrics if metric.name in found]
    bare = [metric.name for metric in metrics if metric not in graded]
    if graded and bare and distributed.is_main():
        logger.warning("%s: has no thresholds for %s, which get no stars", monitor.thresholds, ", ".join(bare))
    starred = {m.name: attempt(partial(_starred, monitor.thresholds, m, found[m.name])) for m in graded}
    return [starred.get(metric.name) or metric for metric in metrics]


def _starred(path: Path | None, metric: Metric, thresholds: Thresholds) -> Starred:
    try:
        return Starred(metric, thresholds)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _thresholds(monitor: MonitorConfig) -> dict[str, Thresholds]:
    """The thresholds in the file that `monitor.thresholds` names; empty if it names none.

    Raises:
        UserError: the file is not usable, or lacks the metrics that the run measures or that a rule watches.
    """
    path, chosen = monitor.thresholds, monitor.metrics.chosen
    if path is None:
        return {}
    found = read_thresholds(path)
    has = f"{path} has thresholds for {', '.join(found)}"
    if not found.keys() & set(chosen):
        raise UserError(
            f"monitor.thresholds: {has}, but the run measures {', '.join(chosen)}; use another file or none"
        )
    wanted = [name for name in chosen if any(rule.metric == stars_of(name) for rule in monitor.rules)]
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"monitor.stopping: a rule watches stars of {', '.join(missing)}, but {has}; watch other stars or a score"
        )
    return found


def _take(output_dir: Path) -> IO[str]:
    """The lock that training holds from the start; the record has its own."""
    folder = output_dir / CHECKPOINTS
    check_places(output_dir)
    check_no_sweep(output_dir)
    with taking(output_dir):
        make_private(folder)
        return lock(folder)


def _find_model(config: Config) -> str | Path:
    base, method = config.base_model, config.train.method
    found = base.find()
    family = base.family(found)
    if method not in family.methods:
        raise UserError(
            f"train.method: found {method}, but {family.name} can only be trained with {' or '.join(family.methods)}: "
            f"set train.method={family.methods[0]}"
        )
    if isinstance(found, Path) and found.is_dir():
        notice_of(found)  # every export reads it, so damage is reported before training
    return found


def _check_sampler(config: Config) -> None:
    """Check that the sampler exists and works with models that predict noise."""
    try:
        own_scheduler(DDPMScheduler(), str(config.monitor.grid.sampler), config.monitor.grid.karras)
    except ValueError as error:
        raise UserError(f"monitor.{error}") from error


def _check_rules(config: Config, metrics: list[Metric]) -> None:
    """Check that rules watch what is measured, with a ceiling if needed, and that `keep: pareto` has two scores.

    Everything else about the rules was checked when the config was read.
    """
    known = config.monitor.columns
    try:
        described = Descriptions.of(metrics)
        for index, rule in enumerate(config.monitor.rules):
            if rule.metric not in {**known, **described.columns}:
                raise ValueError(f"stopping.{index}.metric: {not_described(rule.metric, list(described.columns))}")
        check_rules(config.monitor.rules, config.prompt_grid, {**known, **described.columns}, described.ceilings)
        check_measured(config.monitor.keep, described.columns, config.best_metric)
    except ValueError as error:
        raise UserError(f"monitor.{error}") from error


def _resume_step(config: Config, checkpoint: Checkpoint | None, metrics: list[Metric]) -> int | None:
    """The step from which the record resumes: step 0 for a run that ended before its first checkpoint.

    Raises:
        UserError: the record does not match the checkpoints or the config.
    """
    folder = config.output_dir
    if not config.monitor.enabled or not (folder / RUN).exists():
        if checkpoint is not None and config.monitor.enabled:
            raise UserError(
                f"{folder}: has checkpoints but no record, so there is no floor to compare with; resume with "
                "monitor.enabled=false or choose a new output_dir"
            )
        return None
    recorded = read_run(folder)
    if config.train.resume == "never":
        raise UserError(f"{folder}: holds a run, but train.resume is never; choose a new output_dir")
    if checkpoint is None and recorded.has_ended:
        raise UserError(f"{folder}: holds a run whose checkpoints are missing; choose a new output_dir")
    described = Descriptions.of(metrics).to_json() if metrics else {}
    new = {"grid": described_grid(config.prompt_grid), **described}
    check_resume(folder, recorded.run, plain(redacted(new)))
    return checkpoint.step if checkpoint is not None else 0


def check_space(config: Config, trained: int, frozen: int) -> None:
    """Check that a run's checkpoints fit on the disk, next to those that it has already written.

    Args:
        trained: the number of parameters with gradients; each checkpoint holds them in fp32, and the optimizer's state.
        frozen: the number of other parameters, which a `full` export also holds.

    Raises:
        UserError: states the free and the required space.
    """
    copies = 1 + STATE_SIZE[config.train.optimizer] + (1 if config.train.ema_decay else 0)
    checkpoints = int(4 * trained * copies) * (config.train.keep_checkpoints + 1)
    exported = trained + frozen if config.train.method == "full" else 2 * trained  # a LoRA is written in two formats
    exports = 4 * (_kept_steps(config) + MORE_EXPORTS) * exported
    needed = max(0, checkpoints + exports - _occupied(config.output_dir))
    free = shutil.disk_usage(config.output_dir).free
    if free < needed:
        raise UserError(
            f"{config.output_dir}: {free / GIB:.1f} GiB free, but the run's checkpoints and exports need about "
            f"{needed / GIB:.1f} GiB more; free some space, lower train.keep_checkpoints, keep fewer weights "
            f"(monitor.keep is {config.monitor.keep}), or choose another output_dir"
        )


def _occupied(output_dir: Path) -> int:
    """The bytes on the disk of a run's checkpoints and exports; `best/` shares those of another folder."""
    files = {}
    for folder in (CHECKPOINTS, WEIGHTS, LAST):
        for path in (output_dir / folder).rglob("*"):
            found = path.lstat()
            files[found.st_ino] = 512 * found.st_blocks
    return sum(files.values())


def _kept_steps(config: Config) -> int:
    """The largest number of steps whose weights are on the disk at a time."""
    monitor = config.monitor
    if not monitor.enabled:
        return 0
    evaluations = math.ceil(config.train.max_steps / monitor.every)  # the last step is evaluated, too
    return most_kept(resolved_keep(monitor.keep, config.train.method == "lora"), evaluations)
