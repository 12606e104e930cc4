"""How much of what was learned leaks into prompts that do not name the subject, and changes other people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import UNIT, cosines
from finetune_monitor.metrics.face_similarity import NAME as SUBJECT
from finetune_monitor.metrics.reference_faces import RECOGNIZER, ReferenceFaces, make_reader, shared_reader
from finetune_monitor.metrics.reference_photos import References
from finetune_monitor.record.columns import ScoreColumn, with_level
from finetune_monitor.record.curve import changes
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import change_spread, ratio_of_spreads

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.face_reader import FaceReader

PROBE_SIMILARITY = "probe_similarity"

ALARM = 0.5

TOLD_FROM_CHANCE = 2.0
"""Number of standard errors that the subject's own rise must exceed before a share of it is meaningful."""


class Leakage:
    """Rise of the probe images' similarity to the subject since step 0, as a share of the rise of the subject's images.

    0: other people keep their identity. 1: every person becomes the subject. The similarity of the subject's images
    comes from `FaceSimilarity` with the same recognizer, which must also be measured.

    Columns:
        leakage: one value per evaluation, not per image; undefined until the subject's rise exceeds two standard
            errors, and with fewer than two measured probes.
        probe_similarity: mean cosine of a probe's largest face with every reference face; NaN if no face is found.

    Args:
        references, recognizer, device: as for `FaceSimilarity`.
        alarm: the share above which the alarm sounds.

    Raises:
        UserError: as for `FaceSimilarity`.
    """

    name = "leakage"
    higher_is_better = False
    bounds = (float("-inf"), float("inf"))
    needs_probes = True

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set; the default recognizer is that of the face similarity."""

        recognizer: str | None = None
        alarm: float = ALARM

        def __post_init__(self) -> None:
            if not self.alarm > 0:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share above 0")

    columns: ClassVar = {
        name: ScoreColumn(
            False,
            over="run",
            alarm=ALARM,
            says="what the model learns about the subject also changes other people; raise train.prior_loss_weight, "
            "add class images, or stop earlier",
            unit="share of the subject's rise",
        ),
        PROBE_SIMILARITY: ScoreColumn(None, (-1.0, 1.0), "side", over="probes", unit=UNIT),
    }

    def __init__(
        self,
        references: References,
        recognizer: "str | Path | FaceReader" = RECOGNIZER,
        device: "str | torch.device" = "cpu",
        alarm: float = ALARM,
    ) -> None:
        self._reader = make_reader(recognizer, device)
        faces = ReferenceFaces.read(references, self._reader)
        self._references = faces.references
        self._description = Description(
            columns=with_level(self.columns, alarm),
            weights={"recognizer": self._reader.identity, **faces.photos.weights},
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Leakage | None":
        """The metric as configured for a run; without photos, only the recognizer is checked."""
        reader = shared_reader(options.recognizer, run)
        return None if run.photos is None else cls(run.references().trained, reader, alarm=options.alarm)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The probes' similarity, with one value per image (RGB); NaN for the subject's images."""
        found = np.full(len(images), MISSING)
        probes = [place for place, cell in enumerate(cells) if cell.is_probe]
        for place, faces in zip(probes, self._reader.read_largest([images[place] for place in probes]), strict=True):
            if len(faces):
                found[place] = cosines(faces, self._references).mean()
        return {PROBE_SIMILARITY: found}

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The leakage at the last evaluation."""
        first, last = history[0], history[-1]
        if first.step != 0 or last.step == 0:
            return {}
        own = change_spread(*changes(first.images, last.images, SUBJECT))
        probes, draws = changes(first.images, last.images, PROBE_SIMILARITY)
        measured = int((~np.isnan(probes)).sum())
        if measured < 2 or not own.freedom or not own.mean > TOLD_FROM_CHANCE * own.error:
            return {}
        return {self.name: ratio_of_spreads(change_spread(probes, draws), own, measured, len(probes) - measured)}

    def describe(self) -> Description:
        """The recognizer and the photos, each with its SHA-256, and the alarm."""
        return self._description
