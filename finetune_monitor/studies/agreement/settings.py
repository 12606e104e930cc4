"""The inputs and settings of a comparison with people's labels."""

from dataclasses import dataclass
from pathlib import Path

METHOD_NAMES = {"least_cost": "least cost", "marginals": "people's shares"}
"""The ways to choose thresholds (`star_fitting.METHODS`), in words."""


@dataclass(frozen=True)
class StudyInputs:
    """The inputs of a comparison.

    ratings: at most one plan's folder, and files for `read_rating_files`.
    scores: a CSV file with the model's scores; None uses those in the records of the plan's runs.
    metric: the metric to compare, if there are ratings for several; also the question, if a file does not state it.
    min_coverage: labelers who labeled a smaller share of the images, 0..1, are left out.
    """

    ratings: tuple[Path, ...]
    scores: Path | None = None
    metric: str | None = None
    min_coverage: float = 0.0


@dataclass(frozen=True)
class StudySettings:
    """The settings of a comparison.

    method: how thresholds are chosen, a key of `METHOD_NAMES`.
    power: the exponent of the distances in grades and thresholds.
    seed: for the resamples, the shuffle, and the blocks used if it is unknown which images belong together.
    standardize: give each labeler's labels mean 0 and deviation 1 before averaging them for correlations.
    """

    method: str = "least_cost"
    power: float = 1.0
    seed: int = 0
    standardize: bool = False


DEFAULTS = StudySettings()
