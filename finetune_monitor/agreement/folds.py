"""Stars that a model earns in each labeler's seat: thresholds fitted to the other labelers, cross-validated.

Fitted and tested on the same images they flatter the model (leakage); the clean folds hold out a labeler and a group
of images, usually a person, together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from finetune_monitor.agreement.buckets import Buckets, both_given, fit_buckets, match_marginals
from finetune_monitor.agreement.grades import Labels

Fit: TypeAlias = Callable[[Float[np.ndarray, "samples"], Labels, float], Buckets]

METHODS: Mapping[str, Fit] = {"least_cost": fit_buckets, "marginals": match_marginals}

BLOCKS = 5
"""Groups of images that stand in for persons where nothing tells which belong together."""


def fold_groups(names: Sequence[str] | None, images: int, seed: int = 0) -> Int[np.ndarray, "samples"]:
    """The group of each image by what it belongs to, or one of five random blocks where that is not known."""
    if names is not None:
        return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]
    return np.random.default_rng(seed).permutation(images) % min(BLOCKS, max(1, images))


def naive_stars(scores: Float[np.ndarray, "samples"], labels: Labels, fit: Fit, power: float = 1.0) -> Labels:
    """Stars of each image in each labeler's seat, by thresholds fitted to the others on the same images."""
    every = np.ones(len(scores), dtype=bool)
    return _stars(scores, labels, [(every, every)], fit, power)


def clean_stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    groups: Int[np.ndarray, "samples"],
    fit: Fit,
    power: float = 1.0,
) -> Labels:
    """The same, by thresholds fitted to the others on the images of the other groups alone."""
    return _stars(scores, labels, [(groups != group, groups == group) for group in np.unique(groups)], fit, power)


def _stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    folds: Sequence[tuple[Bool[np.ndarray, "samples"], Bool[np.ndarray, "samples"]]],
    fit: Fit,
    power: float,
) -> Labels:
    """Fitted on the first images of a fold, given to the second.

    NaN where an image has no score, or where nothing is left to fit thresholds to.
    """
    stars = np.full(labels.shape, np.nan)
    for labeler in range(len(labels)):
        others = np.delete(labels, labeler, axis=0)
        usable = both_given(scores, others)
        for train, test in folds:
            if usable[train].any():
                stars[labeler, test] = fit(scores[train], others[:, train], power).steps(scores[test])
    return stars
