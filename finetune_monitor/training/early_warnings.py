"""What would cost an hour before anybody notices: sentences about settings and data, each with what to change."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune_monitor.base.images import each_image
from finetune_monitor.base.text import some_of
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.training.config import Config
from finetune_monitor.training.config.subject import subject_words, words_of
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.survey import Survey

if TYPE_CHECKING:
    from finetune_monitor.models.face_reader import FaceReader

USUAL_RATES: Mapping[str, float] = {"lora": 1e-4, "full": 2e-6}
"""Learning rates for Stable Diffusion 1.x and SDXL, by method."""

USUAL_WITH_PRODIGY = 1.0

FAR = 10.0
"""A learning rate is far from the usual one beyond this factor."""

SMALL = 0.75
"""A resolution is far below the model's own under this share of it."""

CHECKED, LOOK_ALIKES = 24, 0.1
"""Class images whose faces are compared with the subject's, and the share of look-alikes that is too large."""


def about_config(config: Config) -> Iterator[str]:
    """What is unusual in the settings."""
    yield from _about_rate(config)
    if config.monitor.enabled:
        yield from _about_interval(config)
        yield from _about_prompts(config)


def about_resolution(config: Config, native: tuple[int, int]) -> Iterator[str]:
    """A resolution far below the one that the model was trained at.

    Args:
        native: height and width in pixels of the images that the model generates by default.
    """
    found, usual = config.data.resolution, min(native)
    if found < SMALL * usual:
        yield (
            f"data.resolution is {found}, but the base model generates images of {usual} px; it has not learned such "
            f"small ones, so images and scores get worse; set data.resolution={usual}, or use a model for {found} px"
        )


def _about_rate(config: Config) -> Iterator[str]:
    train = config.train
    usual = USUAL_WITH_PRODIGY if train.optimizer == "prodigy" else USUAL_RATES[train.method]
    factor = train.learning_rate / usual
    if max(factor, 1 / factor) <= FAR * (1 + 1e-6):
        return
    what = f"{factor:.3g} times" if factor > 1 else f"1/{1 / factor:.3g} of"
    result = "images may be ruined within a few steps" if factor > 1 else "the model may learn next to nothing"
    change = "lower" if factor > 1 else "raise"
    yield (
        f"train.learning_rate is {train.learning_rate:g}, {what} the usual {usual:g} for method: {train.method} with "
        f"{train.optimizer}; {result}; {change} it"
    )


def _about_interval(config: Config) -> Iterator[str]:
    every, steps = config.monitor.every, config.train.max_steps
    if every > steps:
        yield (
            f"monitor.every is {every}, but training ends at step {steps}, so only the base model and the end are "
            f"evaluated; set monitor.every to {max(1, steps // 10)} or so"
        )


def _about_prompts(config: Config) -> Iterator[str]:
    names = subject_words(config.data)
    without = [prompt for prompt in config.monitor.grid.prompts if names and not names & set(words_of(prompt))]
    if without:
        yield (
            f"monitor.grid.prompts: {some_of(list(map(repr, without)), 3)} without {_listed(names)}, so their images "
            "show anybody; add it, or move what should show other people to monitor.grid.probe_prompts"
        )


def about_captions(config: Config, photos: Sequence[TrainingPhoto]) -> Iterator[str]:
    """Captions that name the subject differently from the instance prompt, whose words the grid's prompts use."""
    names = subject_words(config.data)
    captioned = [photo for photo in photos if photo.prompt != config.data.instance_prompt]
    without = [photo.path.name for photo in captioned if names and not names & set(words_of(photo.prompt))]
    if without:
        yield (
            f"captions of {len(without)} of {len(captioned)} photos name the subject differently, without "
            f"{_listed(names)}: {some_of(without, 5)}; use the same word in captions, data.instance_prompt, and the "
            "grid's prompts, or set data.captions=false"
        )


def _listed(names: set[str]) -> str:
    return " or ".join(map(repr, sorted(names)))


def about_class_images(survey: Survey, reader: "FaceReader | None", others: Sequence[Path]) -> Iterator[str]:
    """Class images that show the subject, which prior preservation would teach to be everybody.

    They are as similar to the photos as these usually are to each other. A lower level would fit one recognizer: with
    some, strangers reach half of that.
    """
    known, usual = [view.embedding for view in survey.views if view.embedding is not None], survey.usual_similarity
    if reader is None or usual is None:
        return
    found = [faces[0] for image in each_image(others[:CHECKED]) if len(faces := reader.read_largest([image])[0])]
    if not found:
        return
    alike = int(((np.stack(found) @ np.stack(known).T).mean(axis=1) >= usual).sum())
    if alike > LOOK_ALIKES * len(found):
        yield (
            f"{alike} of {len(found)} class images look like the subject (similarity of {usual:.2f} or more, which is "
            "usual among the photos), so prior preservation teaches that everybody does; delete them in "
            f"{others[0].parent}: the base model generates new ones"
        )


def about_floor(first: Evaluation, ceilings: Mapping[str, Estimate]) -> Iterator[str]:
    """Scores whose ceiling, that of the photos, is below their floor, that of the base model."""
    for name, ceiling in ceilings.items():
        floor = first.scores.get(name)
        if first.step == 0 and floor is not None and ceiling.mean < floor.mean:
            yield (
                f"{name}: the photos themselves reach {ceiling.mean:.2f} (ceiling), less than the base model's images "
                f"with {floor.mean:.2f} (floor), so a rise means nothing; check that all photos show the same subject, "
                "large and sharp: the contact sheet shows them"
            )
