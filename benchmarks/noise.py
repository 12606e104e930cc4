"""Simulations with known truth for intervals and stopping rules, with the noise measured in the demo's images."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid

Shape: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Draws numbers with mean 0 and variance 1."""

SEED, SEED_AND_STEP, RESIDUAL = 0.128, 0.102, 0.087
"""Standard deviations of an image's similarity due to its seed, to seed and step, and to neither."""

LIKENESS, SPREAD, DIMENSIONS = 0.88, 0.04, 64
"""For photos: mean and standard deviation of the cosine with the person's own direction; the rest is isotropic."""

METRIC = "face_similarity"


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Normal noise, as most formulas assume."""
    return rng.normal(size=size)


def skewed(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Noise skewed to the left, like similarities: most images are near the top, some fail."""
    return (2 - rng.gamma(2, size=size)) / math.sqrt(2)


def scores(
    rng: np.random.Generator, prompts: int, seeds: int, shape: Shape = normal, is_crossed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Scores with mean 0 of a grid's images at one step, and the draw of noise of each image."""
    shared = math.hypot(SEED, SEED_AND_STEP) * shape(rng, (1, seeds) if is_crossed else (prompts, seeds))
    values = shared + RESIDUAL * shape(rng, (prompts, seeds))
    draws = np.tile(np.arange(seeds), prompts) if is_crossed else np.arange(prompts * seeds)
    return values.ravel(), draws


def changes(
    rng: np.random.Generator, prompts: int, seeds: int, shape: Shape = normal, is_crossed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Changes with mean 0 between two steps of the same cells, and the draw of noise of each image."""
    size = (1, seeds) if is_crossed else (prompts, seeds)
    steps = [SEED_AND_STEP * shape(rng, size) + RESIDUAL * shape(rng, (prompts, seeds)) for _ in range(2)]
    draws = np.tile(np.arange(seeds), prompts) if is_crossed else np.arange(prompts * seeds)
    return (steps[1] - steps[0]).ravel(), draws


def photos(
    rng: np.random.Generator, count: int, shape: Shape = normal
) -> tuple[Callable[[Sequence[int]], float], float]:
    """The mean cosine of pairs of photos of a person, as a function of the photos used, and its true value."""
    along = np.minimum(LIKENESS + SPREAD * shape(rng, (count, 1)), 1.0)
    across = rng.normal(size=(count, DIMENSIONS))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    embeddings = np.hstack([along, np.sqrt(1 - along**2) * across])
    cosines = embeddings @ embeddings.T

    def of_pairs(chosen: Sequence[int]) -> float:
        among = cosines[np.ix_(chosen, chosen)]
        return float((among.sum() - np.trace(among)) / (len(chosen) * (len(chosen) - 1)))

    return of_pairs, LIKENESS**2


def history(
    rng: np.random.Generator, curve: Sequence[float], grid: PromptGrid, shape: Shape = normal
) -> list[Evaluation]:
    """Evaluations at steps 0, 300, ... with the curve as true means; a cell's own noise is the same at all steps."""
    places = np.unique([cell.seed for cell in grid.cells], return_inverse=True)[1]
    count = places.max() + 1
    of_seed, residual = SEED * shape(rng, (count,)), (len(curve), len(places))
    noise = (of_seed + SEED_AND_STEP * shape(rng, (len(curve), count)))[:, places] + RESIDUAL * shape(rng, residual)
    return [_evaluation(300 * index, true + noise[index], grid) for index, true in enumerate(curve)]


def _evaluation(step: int, values: np.ndarray, grid: PromptGrid) -> Evaluation:
    images = tuple(
        ScoredImage(cell, None, {METRIC: float(value)}) for cell, value in zip(grid.cells, values, strict=True)
    )
    return Evaluation(step, None, 0.0, summarize(images, {}), images)
