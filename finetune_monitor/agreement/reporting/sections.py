"""What the report shows of one metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune_monitor.agreement.labels import Labeler
from finetune_monitor.agreement.study import Study


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
    def persons(self) -> int | None:
        """How many persons folds and intervals went by; None where they did not."""
        return len(set(self.study.sample.persons or ())) if self.study.known_persons else None

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
            "persons": "not known" if self.persons is None else f"{self.persons:,}",
            "intervals": _units(self.persons),
            "thresholds chosen by": METHOD_NAMES[study.method],
            "power of the distances": f"{study.power:g}",
        }


METHOD_NAMES = {"least_cost": "least cost", "marginals": "people's shares"}
"""The methods of `folds.METHODS` in words."""


def _units(persons: int | None) -> str:
    return "bootstrap over images only" if persons is None else "bootstrap over persons, then their images"
