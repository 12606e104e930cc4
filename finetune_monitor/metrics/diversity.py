"""How different the images of one prompt are from each other: a training that has collapsed draws one face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Description, Feature, RunContext
from finetune_monitor.metrics.cosines import cosines
from finetune_monitor.metrics.reference_faces import RECOGNIZER, make_reader, shared_reader
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, of_column, seeds, values_of
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import ratio

if TYPE_CHECKING:  # the config reads this file for its options, and torch takes seconds
    import torch

    from finetune_monitor.models.face_reader import FaceReader

OF_PROBES = "probe_diversity"

DISTANCES = {"diversity": "face_distance", OF_PROBES: "probe_face_distance"}
"""By column what it is the change of: an image's mean distance to the others of its prompt."""

ALARM = 0.6


class Diversity:
    """Mean pairwise distance of faces within a prompt, as a share of that at step 0: 1 is as different as before.

    For the subject's own prompts it must fall, as all their images are to show one person; for probes it should not.
    Distance is 1 less the cosine of two images' largest faces.

    Columns:
        diversity, probe_diversity: of an evaluation, not of an image.
        face_distance, probe_face_distance: of an image, the mean over the other images of its prompt; NaN where there
            is no face or no other.

    Args:
        recognizer, device: as for `FaceSimilarity`.
        alarm: share of the probes' diversity below which the alarm sounds.

    Raises:
        UserError: the recognizer cannot be had or loaded.
    """

    name = "diversity"
    higher_is_better = True
    bounds = (0.0, float("inf"))
    needs_probes = True

    @dataclass(frozen=True)
    class Options:
        """What a config may set; without a recognizer it is that of the face similarity."""

        recognizer: str | None = None
        alarm: float = ALARM

        def __post_init__(self) -> None:
            if not 0 < self.alarm < 1:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share between 0 and 1")

    columns: ClassVar = {
        name: ScoreColumn(None, over="run"),
        OF_PROBES: ScoreColumn(
            True,
            bounds,
            over="run",
            alarm=ALARM,
            says="the people in images of other prompts become alike; raise train.prior_loss_weight, add class "
            "images, or stop earlier",
        ),
        DISTANCES[name]: ScoreColumn(None, (0.0, 2.0), "side"),
        DISTANCES[OF_PROBES]: ScoreColumn(None, (0.0, 2.0), "side", over="probes"),
    }

    def __init__(
        self,
        recognizer: "str | Path | FaceReader" = RECOGNIZER,
        device: "str | torch.device" = "cpu",
        alarm: float = ALARM,
    ) -> None:
        self._reader = make_reader(recognizer, device)
        self._description = Description(
            columns={**self.columns, OF_PROBES: self.columns[OF_PROBES].with_alarm(alarm)},
            weights={"recognizer": self._reader.identity},
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Diversity":
        """The metric that a run's config asks for."""
        return cls(shared_reader(options.recognizer, run), alarm=options.alarm)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Nothing: images of other processes belong to it, too."""
        return {}

    def features(self, images: Sequence[Image], cells: Sequence[Cell]) -> list[Feature | None]:
        """The embedding of each image's largest face."""
        return [faces[0].astype(np.float64) if len(faces) else None for faces in self._reader.read(images)]

    def compare(self, features: Sequence[Feature | None], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Each image's mean distance to the others of its prompt, in the column of its kind."""
        mean_distance = np.full(len(cells), MISSING)
        for prompt in dict.fromkeys(cell.prompt for cell in cells):
            faces = {i: found for i, found in enumerate(features) if found is not None and cells[i].prompt == prompt}
            places = list(faces)
            if len(places) > 1:
                rows = np.stack(list(faces.values()))
                distances = 1 - cosines(rows, rows)
                np.fill_diagonal(distances, 0.0)
                mean_distance[places] = distances.sum(axis=1) / (len(places) - 1)
        return dict.fromkeys(DISTANCES.values(), mean_distance)

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The diversity at the last evaluation, of the subject's prompts and of the probes."""
        first, last = history[0], history[-1]
        found = {name: _share(first, last, distance) for name, distance in DISTANCES.items()}
        return {name: share for name, share in found.items() if first.step == 0 < last.step and share.n}

    def describe(self) -> Description:
        """The recognizer with its SHA-256, and the alarm."""
        return self._description


def _share(first: Evaluation, last: Evaluation, distance: str) -> Estimate:
    """A mean distance as a share of the first one's."""
    before, after = of_column(first.images, distance), of_column(last.images, distance)
    if len(before) != len(after):
        return Estimate(MISSING, MISSING, MISSING, 0, 0)
    draws, prompts = seeds(after), [image.cell.prompt for image in after]
    return ratio(_pseudo(values_of(after, distance), prompts), _pseudo(values_of(before, distance), prompts), draws)


def _pseudo(values: FloatArray, prompts: Sequence[str]) -> FloatArray:
    """The jackknife's pseudo-values of the mean of all pairs, from each image's mean distance to the others.

    Without one of n images the mean is (n mean - 2 own) / (n - 2); two images of a pair do not count twice.
    """
    found: FloatArray = values.copy()
    for prompt in dict.fromkeys(prompts):
        places = [i for i, each in enumerate(prompts) if each == prompt and not np.isnan(values[i])]
        n = len(places)
        if n > 2:
            mean = values[places].mean()
            found[places] = n * mean - (n - 1) * (n * mean - 2 * values[places]) / (n - 2)
    return found
