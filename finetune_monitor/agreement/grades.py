"""How well one evaluator agrees with the others: the article's appendix B, whose formulas are a reconstruction.

Labels stand in a matrix of evaluators by samples, from 1 to 5, NaN where an evaluator gave none.
"""

import numpy as np
from jaxtyping import Bool, Float

from finetune_monitor.evaluation import MISSING

LOWEST, HIGHEST = 1, 5
"""The Likert scale."""

LEAST_OTHERS = 2
"""Evaluators that a sample score without one must rest on."""

Labels = Float[np.ndarray, "evaluators samples"]
Scores = Float[np.ndarray, "evaluators samples"]


def normalised(labels: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Labels from 1 to 5 as scores from 0 to 1."""
    return (labels - LOWEST) / (HIGHEST - LOWEST)


def standardised(scores: Scores) -> tuple[Scores, Bool[np.ndarray, "evaluators"]]:
    """Each evaluator's scores less their mean, over their standard deviation (that of a population, ddof 0).

    Who always says the same has no deviation: their scores become 0, and their flag is True.
    """
    present = ~np.isnan(scores)
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    centred = scores - np.where(present, scores, 0).sum(axis=1, keepdims=True) / count
    spread = np.sqrt(np.where(present, centred**2, 0).sum(axis=1, keepdims=True) / count)
    flat = ~(spread > 1e-12)
    return np.where(flat & present, 0.0, centred / np.where(flat, 1.0, spread)), flat[:, 0]


def sample_scores(scores: Scores, least: int = 1) -> Float[np.ndarray, "samples"]:
    """Mean score of each sample over the evaluators present; NaN where there are fewer than `least`."""
    present = ~np.isnan(scores)
    count = present.sum(axis=0)
    total = np.where(present, scores, 0).sum(axis=0)
    return np.where(count >= least, total / np.maximum(count, 1), MISSING)


def without(scores: Scores, evaluator: int) -> Float[np.ndarray, "samples"]:
    """Mean score of each sample over the other evaluators; NaN where fewer than two of them gave one."""
    return sample_scores(np.delete(scores, evaluator, axis=0), LEAST_OTHERS)


def grades(
    own: Float[np.ndarray, "samples"],
    others: Float[np.ndarray, "samples"],
    weights: Float[np.ndarray, "rounds samples"],
    power: float = 1.0,
) -> tuple[Float[np.ndarray, "rounds"], Float[np.ndarray, "rounds"]]:
    """Raw and corrected grade of scores 0 to 1 against the sample scores of others, for each weighting of the samples.

    With d the mean of |own - others|^power over the samples: the raw grade is 1 - d^(1/power), up to 1; never to be
    shown alone, as who always says "3" gets a high one. The corrected one is 1 - d / c, where c is the same mean over
    all pairs of a sample of one and a sample of the other: 1 for the same scores, 0 for agreement by chance; with power
    2 it is Lin's concordance coefficient (Lin 1989).
    """
    both = ~np.isnan(own) & ~np.isnan(others)
    x, y, weights = own[both], others[both], weights[:, both]
    total = weights.sum(axis=1)
    total = np.where(total > 0, total, MISSING)
    distance = weights @ np.abs(x - y) ** power / total
    chance = _mean_over_pairs(x, y, weights / total[:, None], power)
    corrected = 1 - distance / np.where(chance > 0, chance, MISSING)
    return 1 - distance ** (1 / power), corrected


def _mean_over_pairs(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], shares: Float[np.ndarray, "rounds n"], power: float
) -> Float[np.ndarray, "rounds"]:
    """Mean of |x - y|^power over all pairs; equal values of x, as an evaluator's are, are taken together."""
    values, place = np.unique(x, return_inverse=True)
    drawn = shares @ np.eye(len(values))[place]
    return np.einsum("rn,rn->r", drawn @ np.abs(values[:, None] - y) ** power, shares)
