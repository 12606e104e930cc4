"""Weights that let rare ratings count as much as common ones: raters crowd in the middle of the scale."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import convolve1d

BINS = 20
"""To a scale: half a point on 0 to 10."""

KERNEL_SIZE, KERNEL_SIGMA = 5, 2.0
"""In bins, as in Yang et al. 2021."""


def rarity(
    ratings: Float[np.ndarray, "n"], train: Float[np.ndarray, "m"], scale: tuple[float, float]
) -> Float[np.ndarray, "n"]:
    """One over the smoothed density of the training ratings at each rating, mean 1 over the training ratings.

    Label-distribution smoothing (Yang et al. 2021, Delving into Deep Imbalanced Regression): counts by bin, their
    square root, smoothed by a Gaussian, since what is learnt at one rating serves its neighbours too.
    """
    counts = np.bincount(_bins(train, scale), minlength=BINS)
    density = convolve1d(np.sqrt(counts), gaussian_kernel(), mode="constant")
    # Bins far from every training rating have no density; they weigh as much as the rarest that has one.
    inverse = 1 / np.maximum(density, density[density > 0].min())
    return inverse[_bins(ratings, scale)] / inverse[_bins(train, scale)].mean()


def gaussian_kernel() -> Float[np.ndarray, "k"]:
    """Values of a Gaussian at the bins around its own, their sum 1."""
    offsets = np.arange(KERNEL_SIZE) - KERNEL_SIZE // 2
    values = np.exp(-np.square(offsets / KERNEL_SIGMA) / 2)
    return values / values.sum()


def _bins(ratings: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    low, high = scale
    return np.clip((ratings - low) / (high - low) * BINS, 0, BINS - 1).astype(np.int64)
