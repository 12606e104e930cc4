"""The alternative annotator test (Calderon et al. 2025, arXiv 2501.10970): can the model replace a labeler?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, ttest_1samp

from finetune_monitor.studies.agreement.coefficients import Labels

EPSILONS = (0.1, 0.15, 0.2)
"""The paper's margins for a model's lower cost: compared with a crowd, skilled people, experts."""

LEAST_SHARED_IMAGES = 30
"""The number of images that a labeler must share with others to be included."""

LEAST_COMPARED = 3
FALSE_DISCOVERIES = 0.05
PASSED = 0.5


@dataclass(frozen=True)
class AlternativeTest:
    """The result of the test.

    advantage: the share of images on which the model is at least as close to the other labelers as the labeler it
        replaces, averaged over labelers; 0..1.
    advantages: the same for each labeler; NaN for a labeler who was left out.
    winning_rates: the share of labelers that the model can replace, by epsilon; it passes from 0.5.
    """

    advantage: float
    advantages: Float[np.ndarray, "evaluators"]
    winning_rates: dict[float, float]

    def passes(self, epsilon: float) -> bool:
        return self.winning_rates[epsilon] >= PASSED


def alternative_test(stars: Labels, labels: Labels) -> AlternativeTest | None:
    """The test of the model against each labeler, image by image, by distance to the other labelers' labels.

    Distance is the root mean square. A one-sided t-test for each labeler checks whether the model loses by less than
    epsilon; the false discovery rate is kept at 5% (Benjamini and Yekutieli 2001).

    Args:
        stars: the model's stars in each labeler's place.

    Returns:
        None if fewer than three labelers share 30 images with another one.
    """
    compared = [_compare(stars[labeler], labels, labeler) for labeler in range(len(labels))]
    used = [(model, human) for model, human in compared if len(model) >= LEAST_SHARED_IMAGES]
    if len(used) < LEAST_COMPARED:
        return None
    advantages = np.array([model.mean() if len(model) >= LEAST_SHARED_IMAGES else np.nan for model, _ in compared])
    rates = {}
    for epsilon in EPSILONS:
        p_values = [_p_value(human - model, epsilon) for model, human in used]
        rates[epsilon] = float((false_discovery_control(p_values, method="by") <= FALSE_DISCOVERIES).mean())
    return AlternativeTest(float(np.nanmean(advantages)), advantages, rates)


def _compare(
    own_stars: Float[np.ndarray, "samples"], labels: Labels, labeler: int
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """1 for each image on which the model is at least as close to the others, and the same for the labeler."""
    others = np.delete(labels, labeler, axis=0)
    used = ~np.isnan(own_stars) & ~np.isnan(labels[labeler]) & ~np.isnan(others).all(axis=0)
    model, human = (np.nansum((each[used] - others[:, used]) ** 2, axis=0) for each in (own_stars, labels[labeler]))
    return (model <= human).astype(np.float64), (human <= model).astype(np.float64)


def _p_value(differences: Float[np.ndarray, "n"], epsilon: float) -> float:
    """The p-value of the hypothesis that the model loses by epsilon or more on average."""
    if np.ptp(differences) == 0:
        return float(differences[0] >= epsilon)
    return float(ttest_1samp(differences, epsilon, alternative="less").pvalue)
