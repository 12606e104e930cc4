"""What is compared with people's labels, and what can be chosen when it is."""

from dataclasses import dataclass
from pathlib import Path

METHOD_NAMES = {"least_cost": "least cost", "marginals": "people's shares"}
"""The ways to choose thresholds (`star_fitting.METHODS`), in words."""


@dataclass(frozen=True)
class StudyInputs:
    """What is compared.

    ratings: folders of plans, of which there may be one, and files as `read_rating_files` takes them.
    scores: a CSV with the model's scores; None takes those in the records of the plan's runs.
    metric: the one to compare, where the ratings are of several; also what was asked where a file does not say it.
    min_coverage: labelers who labeled a smaller share of the images, 0..1, are left out.
    """

    ratings: tuple[Path, ...]
    scores: Path | None = None
    metric: str | None = None
    min_coverage: float = 0.0


@dataclass(frozen=True)
class StudySettings:
    """How it is compared.

    method: how thresholds are chosen, a key of `METHOD_NAMES`.
    power: of the distances that grades and thresholds count.
    seed: of the resamples, the shuffle, and the blocks where nothing tells which images belong together.
    standardize: give each labeler's labels mean 0 and deviation 1 before they are averaged for correlations.
    """

    method: str = "least_cost"
    power: float = 1.0
    seed: int = 0
    standardize: bool = False


DEFAULTS = StudySettings()
