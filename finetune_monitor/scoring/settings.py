"""What a score is measured with: the grid, metrics, and sinks of a config, or their defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.images import list_images
from finetune_monitor.base.sections import problems_of
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.base.yaml_files import override, read_yaml
from finetune_monitor.metrics import Metric, RunContext
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.training.config import Config, validated
from finetune_monitor.training.own import classes_of, make_metric
from finetune_monitor.training.photos import choose_photos
from finetune_monitor.training.preflight import Attempts, with_stars
from finetune_monitor.training.registry import METRICS
from finetune_monitor.training.shipped import shipped

SUBJECT = "sks person"
"""What prompts call the subject if nothing else is known."""

PROMPTS = (
    "a photo of {}",
    "a close-up portrait of {} smiling, natural light",
    "{} as an astronaut, oil painting",
    "a photo of {} in front of the Eiffel tower",
)
"""Those of configs/sd15_lora.yaml, with a place for the subject."""

ARTICLES = ("a photo of ", "photo of ")

HINT = "  to change an option of the metric: --set monitor.metrics.{0}.KEY=VALUE; to score without it: ...{0}=null"

NEED_PROMPTS = ("clip_score",)
"""Metrics that compare an image with the text of its prompt."""


OF_MODEL = ("revision", "variant", "layout", "vae", "embeddings")
"""What a config says of its base model besides the name."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    base: folder, file, or hub id of the base model; None for images.
    references: the folder of photos; None for that of the config.
    prompts: of the grid, or of the trainer whose images are scored; empty for the default.
    config: a training config whose grid, metrics, and sinks count.
    changes: `dotted.key=value` of such a config.
    """

    paths: Sequence[Path]
    references: Path | None
    base: str | None = None
    strengths: Sequence[float] | None = None
    prompts: Sequence[str] = ()
    output_dir: Path = Path("runs/scores")
    config: Path | None = None
    changes: Sequence[str] = ()
    watch: bool = False


@dataclass(frozen=True)
class Measured:
    """The metrics, and why others are missing, by name."""

    metrics: Sequence[Metric]
    missing: Mapping[str, str]


def default_prompts(trigger: str | None) -> list[str]:
    """The prompts of the default grid with the words that ask for the subject."""
    subject = trigger or SUBJECT
    for article in ARTICLES:
        subject = subject.removeprefix(article)
    return [prompt.format(subject) for prompt in PROMPTS]


def model_in(config: Path | None) -> str | None:
    """The base model that a config names."""
    found = None if config is None else read_yaml(Path(shipped(str(config))), partial(holds_text, Config)).get("model")
    return None if found is None else shipped(str(found))


def make_config(options: Options, trigger: str | None) -> Config:
    """The config: the given one, with what the command line says in its place.

    Without one, all metrics of the package are measured, as far as they can be.

    Raises:
        UserError: lists everything that is wrong with it.
    """
    path = None if options.config is None else Path(shipped(str(options.config)))
    is_text = partial(holds_text, Config)
    content: dict[str, Any] = {} if path is None else read_yaml(path, is_text)
    _fill(content, options, trigger)
    for change in options.changes:
        override(content, change, is_text)
    try:
        return validated(content, path.parent if path else Path())
    except ValidationError as error:
        all_problems(problems_of(error, Config), f"{path or 'the settings'}: not valid")
        raise


def _fill(content: dict[str, Any], options: Options, trigger: str | None) -> None:
    data, train, monitor = (_section(content, name) for name in ("data", "train", "monitor"))
    named = content.get("model")
    if options.base is not None and (named is None or options.base != shipped(str(named))):
        for key in OF_MODEL:  # they belong to the config's own model
            content.pop(key, None)
    content["model"] = options.base or named or "images"
    content["output_dir"] = str(options.output_dir)
    if options.references is not None:
        data["instance_images"] = str(options.references)
        data["held_out"] = None
    grid = _section(monitor, "grid")
    if options.prompts or "prompts" not in grid:
        grid["prompts"] = list(dict.fromkeys(options.prompts)) or default_prompts(trigger)
    data.setdefault("instance_prompt", trigger or grid["prompts"][0])
    train["prior_loss_weight"] = 0  # nothing is trained: class images are used if they exist
    monitor.setdefault("metrics", {name: {} for name in METRICS.classes})
    monitor["stopping"] = []
    sinks = _section(monitor, "sinks")
    sinks.setdefault("report", {})
    sinks.setdefault("tensorboard", {})


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    found = content.setdefault(name, {})
    if not isinstance(found, dict):
        raise UserError(f"{name}: found {found!r}, expected a section with keys")
    return found


def grid_in(config: Config, options: Options) -> PromptGrid:
    """The grid of the config; without a config, at the model's own size."""
    sized = options.config is not None or any(change.startswith("data.resolution=") for change in options.changes)
    return config.prompt_grid if sized else replace(config.prompt_grid, size=None)


def make_metrics(config: Config, device: torch.device, prompts: Sequence[str], of_images: bool) -> Measured:
    """The metrics of the config; those that cannot be made are missing, except the first, which decides.

    Args:
        prompts: the known prompts of the images.
        of_images: the images come from another tool, so there is no model, and no probe.

    Raises:
        UserError: the first metric cannot be made, or the thresholds do not suit.
    """
    photos = choose_photos(config.data)
    kinds, missing = _suitable(config, prompts, of_images)
    chosen = config.monitor.metrics.chosen
    gallery, prompt = _gallery(config), config.data.instance_prompt
    run = RunContext(photos.training, photos.held_out, device, prompts, chosen, gallery, prompt)
    made: list[Metric] = []
    for name, kind in kinds.items():
        try:
            metric = make_metric(kind, chosen[name], run)
        except UserError as error:
            if not made:
                raise UserError(f"{error}\n{HINT.format(name)}") from error
            missing[name] = str(error)
            continue
        if metric is None:
            missing[name] = "no photo is held out"
        else:
            made.append(metric)
    if not made:
        all_problems([f"{name}: {why}" for name, why in missing.items()], "nothing can be measured:")
    problems: list[str] = []
    metrics = with_stars(config.monitor, made, Attempts(problems))
    all_problems(problems, "the scores cannot be measured:")
    return Measured(metrics, missing)


def _gallery(config: Config) -> Path | None:
    """The folder of class images, if there are any."""
    folder = config.data.class_images
    if folder is None:
        return None
    try:
        list_images(folder)
    except UserError:
        return None
    return folder


def _suitable(config: Config, prompts: Sequence[str], of_images: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The classes of the metrics that can measure such images, and why the others cannot."""
    kinds = classes_of(METRICS, config.monitor.metrics)
    missing: dict[str, str] = {}
    if of_images:
        missing |= {
            name: "needs images of prompts that do not name the subject, which only the model can generate"
            for name, kind in kinds.items()
            if getattr(kind, "needs_probes", False)
        }
        missing |= {name: "needs the model itself" for name, kind in kinds.items() if hasattr(kind, "measure")}
        if not prompts:
            missing |= dict.fromkeys(NEED_PROMPTS, "not all prompts are known; name them with --prompts")
    missing = {name: why for name, why in missing.items() if name in kinds}
    return {name: kind for name, kind in kinds.items() if name not in missing}, missing
