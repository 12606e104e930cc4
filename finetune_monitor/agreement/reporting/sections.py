"""What the report shows of one metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from finetune_monitor.agreement.labels import Labeler
from finetune_monitor.agreement.study import CELL, IMAGE, PERSON, Study


@dataclass(frozen=True)
class Section:
    """One metric's findings, and what a reader needs beside them.

    labelers: as `labels.describe_labelers` has them, in the order of the study's table.
    notes: sentences on gaps, duplicates and the like.
    pictures: the file of each image; None where there are none to show.
    captions: what an image is, such as "ana, step 300"; None where only its id is known.
    """

    study: Study
    labelers: Sequence[Labeler]
    notes: Sequence[str] = ()
    pictures: Mapping[str, Path] | None = None
    captions: Mapping[str, str] | None = None

    @property
    def metric(self) -> str:
        return self.study.sample.table.metric

    @property
    def persons(self) -> int:
        """How many are known among the images with a score; 0 where they are not known."""
        sample = self.study.sample
        return 0 if sample.persons is None else len(set(compress(sample.persons, sample.scored)))

    @property
    def facts(self) -> dict[str, str]:
        """How much was compared, and how."""
        study, labels = self.study, self.study.sample.table.labels
        given, images = int((~np.isnan(labels)).sum()), labels.shape[1]
        scored = int((~np.isnan(study.sample.scores)).sum())
        return {
            "images": f"{images:,}, {'all' if scored == images else f'{scored:,} of them'} with a score",
            "labelers": f"{len(labels):,}",
            "labels": f"{given:,} of {labels.size:,} possible",
            "persons": f"{self.persons:,}" if self.persons else "not known",
            "folds and intervals": f"by {UNIT_NAMES[study.sample.unit]}",
            "thresholds chosen by": METHOD_NAMES[study.method],
            "power of the distances": f"{study.power:g}",
        }


METHOD_NAMES = {"least_cost": "least cost", "marginals": "people's shares"}
"""The methods of `folds.METHODS` in words."""

UNIT_NAMES = {PERSON: "person, then image", CELL: "prompt and seed, then image", IMAGE: "image"}
"""What folds hold out and the bootstrap draws, in words."""
