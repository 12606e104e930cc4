"""Simulated labelers and models of whom the truth is known."""

from collections.abc import Sequence

import numpy as np

from finetune_monitor.studies.agreement.label_matrix import LabelTable, label_tables
from finetune_monitor.studies.agreement.study import Sample
from finetune_monitor.studies.labeling.ratings import Rating

PERSONS, EACH = 8, 64


def guesses(truth: np.ndarray, chance: float, random: np.random.Generator) -> np.ndarray:
    """The truth, but any label at all with this chance; two such series agree by kappa (1 - chance) (1 - chance')."""
    return np.where(random.random(len(truth)) < chance, random.integers(1, 6, len(truth)), truth).astype(float)


def truth(seed: int = 0, images: int = PERSONS * EACH) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 6, images)


def table(labels: np.ndarray, labelers: Sequence[str] | None = None, metric: str = "aesthetic") -> LabelTable:
    """A table as the readers make it; images have their places as names, so that both orders are the same."""
    names = labelers or [f"labeler {e}" for e in range(len(labels))]
    ratings = [
        Rating(str(image), names[e], metric, int(labels[e, image]))
        for e, image in zip(*np.nonzero(~np.isnan(labels)), strict=True)
    ]
    return label_tables(ratings)[metric]


def sample(labels: np.ndarray, scores: np.ndarray, persons: int = PERSONS, **named) -> Sample:
    """Images of one person stand together; `persons` 0: not known."""
    shown = tuple(f"person {i * persons // len(scores)}" for i in range(len(scores))) if persons else None
    return Sample(table(labels, **named), scores, shown)
