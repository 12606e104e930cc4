"""How different the images of a prompt are from each other: a collapsed model generates a single face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool
from PIL.Image import Image

from finetune_monitor.metrics import Description, Feature, RunContext
from finetune_monitor.metrics.cosines import cosines
from finetune_monitor.metrics.reference_faces import RECOGNIZER, make_reader, shared_reader
from finetune_monitor.record.columns import ScoreColumn, with_level
from finetune_monitor.record.evaluation import Evaluation, of_column, seeds, values_of
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import Draws, ratio

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.clip import ClipEncoder
    from finetune_monitor.models.face_reader import FaceReader

NAME, OF_PROBES = "diversity", "probe_diversity"

BY_CLIP, OF_PROBES_BY_CLIP = "clip_diversity", "probe_clip_diversity"

FACES = {NAME: "face_distance", OF_PROBES: "probe_face_distance"}
"""For each column, the distance whose change it measures: an image's mean distance to the others of its prompt."""

IMAGES = {BY_CLIP: "clip_distance", OF_PROBES_BY_CLIP: "probe_clip_distance"}
"""The same for entire images."""

ALARM = 0.6

DISTANCE, OF_START = "cosine distance", "share of step 0"
"""Units."""

CLIP_GIVEN = f"monitor.metrics.{NAME}.clip"


class Diversity:
    """Mean distance between the images of a prompt, relative to step 0: 1 means as different as before.

    For the subject's own prompts it must fall, because all their images should show one person; for probes it should
    not. Distance is 1 minus the cosine of the two largest faces and, if CLIP is given, of the entire images.

    Columns:
        diversity, probe_diversity: by faces; one value per evaluation, not per image.
        clip_diversity, probe_clip_diversity: by CLIP.
        face_distance, probe_face_distance, clip_distance, probe_clip_distance: per image, the mean over the other
            images of its prompt; NaN if there is no face or no other image.

    Args:
        recognizer, device: as for `FaceSimilarity`.
        alarm: the share of the probes' initial diversity below which the alarm sounds.
        clip: also compares entire images; None compares faces only.

    Raises:
        UserError: the recognizer is not available or cannot be loaded.
    """

    name = NAME
    higher_is_better = True
    bounds = (0.0, float("inf"))
    needs_probes = True

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set; the recognizer defaults to that of the face similarity, CLIP to none."""

        recognizer: str | None = None
        alarm: float = ALARM
        clip: str | None = None
        pretrained: str | None = None

        def __post_init__(self) -> None:
            if not 0 < self.alarm < 1:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share between 0 and 1")

    columns: ClassVar = {
        NAME: ScoreColumn(None, over="run", ignores=("clip",), unit=OF_START),
        OF_PROBES: ScoreColumn(
            True,
            bounds,
            over="run",
            ignores=("clip",),
            alarm=ALARM,
            says="people in images of other prompts look more and more alike; raise train.prior_loss_weight, add class "
            "images, or stop earlier",
            unit=OF_START,
        ),
        BY_CLIP: ScoreColumn(None, over="run", ignores=("recognizer",), needs=CLIP_GIVEN, unit=OF_START),
        OF_PROBES_BY_CLIP: ScoreColumn(
            True,
            bounds,
            over="run",
            ignores=("recognizer",),
            needs=CLIP_GIVEN,
            alarm=ALARM,
            says="images of other prompts look more and more alike; raise train.prior_loss_weight, add class images, "
            "or stop earlier",
            unit=OF_START,
        ),
        FACES[NAME]: ScoreColumn(None, (0.0, 2.0), "side", ignores=("clip",), unit=DISTANCE),
        FACES[OF_PROBES]: ScoreColumn(None, (0.0, 2.0), "side", ignores=("clip",), over="probes", unit=DISTANCE),
        IMAGES[BY_CLIP]: ScoreColumn(
            None, (0.0, 2.0), "side", ignores=("recognizer",), needs=CLIP_GIVEN, unit=DISTANCE
        ),
        IMAGES[OF_PROBES_BY_CLIP]: ScoreColumn(
            None, (0.0, 2.0), "side", ignores=("recognizer",), over="probes", needs=CLIP_GIVEN, unit=DISTANCE
        ),
    }

    def __init__(
        self,
        recognizer: "str | Path | FaceReader" = RECOGNIZER,
        device: "str | torch.device" = "cpu",
        alarm: float = ALARM,
        clip: "ClipEncoder | None" = None,
    ) -> None:
        self._reader, self._clip = make_reader(recognizer, device), clip
        border = 0 if clip is None else clip.embed([]).shape[1]
        self._spaces = [(FACES, slice(border, None))] + ([] if clip is None else [(IMAGES, slice(border))])
        given = [name for space, _ in self._spaces for name in (*space, *space.values())]
        weights: dict[str, Any] = {"recognizer": self._reader.identity}
        if clip is not None:
            weights["clip"] = clip.identity
        known = {name: self.columns[name] for name in given}
        self._description = Description(
            columns=with_level(known, alarm),
            weights=weights,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Diversity":
        """The metric as configured for a run."""
        clip = None if options.clip is None else run.clip(options.clip, options.pretrained)
        return cls(shared_reader(options.recognizer, run), alarm=options.alarm, clip=clip)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Nothing: the metric also needs the images of other processes."""
        return {}

    def features(self, images: Sequence[Image], cells: Sequence[Cell]) -> list[Feature | None]:
        """For each image, its CLIP embedding followed by that of its largest face; either may be absent."""
        faces = [found[0] if len(found) else np.zeros(0) for found in self._reader.read_largest(images)]
        whole = np.zeros((len(images), 0)) if self._clip is None else self._clip.embed(images).cpu().numpy()
        found = [np.concatenate(pair).astype(np.float64) for pair in zip(whole, faces, strict=True)]
        return [each if len(each) else None for each in found]

    def compare(self, features: Sequence[Feature | None], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Each image's mean distance to the others of its prompt, in the column for subjects or probes."""
        columns: dict[str, FloatArray] = {}
        for space, part in self._spaces:
            distances = _mean_distances([None if each is None else each[part] for each in features], cells)
            columns |= dict.fromkeys(space.values(), distances)
        return columns

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The diversity of the subject's prompts and of the probes at the last evaluation."""
        first, last = history[0], history[-1]
        pairs = [pair for space, _ in self._spaces for pair in space.items()]
        found = {name: _share(first, last, distance) for name, distance in pairs}
        return {name: share for name, share in found.items() if first.step == 0 < last.step and share.n}

    def describe(self) -> Description:
        """The recognizer with its SHA-256, and the alarm."""
        return self._description


def _mean_distances(rows: Sequence[Feature | None], cells: Sequence[Cell]) -> FloatArray:
    """Each row's mean distance to the others of its prompt; NaN if it is missing or the only one."""
    found = np.full(len(cells), MISSING)
    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        own = {i: row for i, row in enumerate(rows) if row is not None and len(row) and cells[i].prompt == prompt}
        if len(own) > 1:
            stacked = np.stack(list(own.values()))
            distances = 1 - cosines(stacked, stacked)
            np.fill_diagonal(distances, 0.0)
            found[list(own)] = distances.sum(axis=1) / (len(own) - 1)
    return found


def _share(first: Evaluation, last: Evaluation, distance: str) -> Estimate:
    """A mean distance as a share of that at the first evaluation."""
    before, after = of_column(first.images, distance), of_column(last.images, distance)
    if len(before) != len(after):
        return Estimate(MISSING, MISSING, MISSING, 0, 0)
    prompts = [image.cell.prompt for image in after]
    new, old = values_of(after, distance), values_of(before, distance)
    draws = _with_pairs_joined(seeds(after), prompts, ~np.isnan(new + old))
    return ratio(_pseudo(new, prompts), _pseudo(old, prompts), draws)


def _with_pairs_joined(draws: Draws, prompts: Sequence[str], measured: Bool[np.ndarray, "n"]) -> Draws:
    """The draws, where those of a prompt with only two measured images are one: both images have the same distance."""
    found: Draws = draws.copy()
    for prompt in dict.fromkeys(prompts):
        places = [i for i, each in enumerate(prompts) if each == prompt and measured[i]]
        if len(places) == 2:
            found[found == found[places[1]]] = found[places[0]]
    return found


def _pseudo(values: FloatArray, prompts: Sequence[str]) -> FloatArray:
    """The jackknife pseudo-values of the mean over all pairs, from each image's mean distance to the others.

    Leaving out one of n images gives the mean (n mean - 2 own) / (n - 2); each pair counts once.
    """
    found: FloatArray = values.copy()
    for prompt in dict.fromkeys(prompts):
        places = [i for i, each in enumerate(prompts) if each == prompt and not np.isnan(values[i])]
        n = len(places)
        if n > 2:
            mean = values[places].mean()
            found[places] = n * mean - (n - 1) * (n * mean - 2 * values[places]) / (n - 2)
    return found
