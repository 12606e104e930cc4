"""Cosines of embeddings, and how similar real photos are to each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.intervals import jackknife

BOUNDS, UNIT = (-1.0, 1.0), "cosine similarity"
"""The range of a cosine, and its name."""


def cosines(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """The cosine of every row of `a` with every row of `b`, both L2-normalized."""
    found: np.ndarray = np.clip(a.astype(np.float64) @ b.astype(np.float64).T, *BOUNDS)
    return found


def among(embeddings: Float[np.ndarray, "n d"]) -> Estimate:
    """The mean cosine of all pairs, with its interval over other photos of the same kind.

    NaN for fewer than two photos, and without an interval for fewer than three.
    """
    count = len(embeddings)
    if count < 2:
        return Estimate(MISSING, MISSING, MISSING, count, 0)
    found = cosines(embeddings, embeddings)

    def of_pairs(chosen: Sequence[int]) -> float:
        return float(found[np.ix_(chosen, chosen)][np.triu_indices(len(chosen), k=1)].mean())

    return jackknife(of_pairs, count).interval(count, bounds=BOUNDS)
