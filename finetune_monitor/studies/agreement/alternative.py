"""The alternative annotator test (Calderon et al. 2025, arXiv 2501.10970): may the model stand in for a labeler?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, ttest_1samp

from finetune_monitor.studies.agreement.coefficients import Labels

EPSILONS = (0.1, 0.15, 0.2)
"""What a model's lower price is worth, as the paper has it: against the crowd, skilled people, experts."""

LEAST_SHARED_IMAGES = 30
"""Images that a labeler must share with the others to be compared with."""

LEAST_COMPARED = 3
FALSE_DISCOVERIES = 0.05
PASSED = 0.5


@dataclass(frozen=True)
class AlternativeTest:
    """What the test says.

    advantage: mean over the labelers of the share of images on which the model is as near to the others as the labeler
        in whose seat it sits, or nearer; 0..1.
    advantages: the same for each labeler; NaN for one who was left out.
    winning_rates: share of the labelers that the model may replace, by epsilon; it passes from 0.5 on.
    """

    advantage: float
    advantages: Float[np.ndarray, "evaluators"]
    winning_rates: dict[float, float]

    def passes(self, epsilon: float) -> bool:
        return self.winning_rates[epsilon] >= PASSED


def alternative_test(stars: Labels, labels: Labels) -> AlternativeTest | None:
    """Compare the model with each labeler, image by image, by the distance to the other labelers' labels.

    Distance is the root mean square. A one-sided t-test asks for each labeler whether the model loses by less than
    epsilon; the false discoveries among them are kept at 5 % (Benjamini and Yekutieli 2001).

    Args:
        stars: the model's in each labeler's seat.

    Returns:
        None where fewer than three labelers share 30 images with another one.
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
    """1 for each image on which the model is as near to the others or nearer; and the same for the labeler."""
    others = np.delete(labels, labeler, axis=0)
    used = ~np.isnan(own_stars) & ~np.isnan(labels[labeler]) & ~np.isnan(others).all(axis=0)
    model, human = (np.nansum((each[used] - others[:, used]) ** 2, axis=0) for each in (own_stars, labels[labeler]))
    return (model <= human).astype(np.float64), (human <= model).astype(np.float64)


def _p_value(differences: Float[np.ndarray, "n"], epsilon: float) -> float:
    """That the model loses by epsilon or more on average."""
    if np.ptp(differences) == 0:
        return float(differences[0] >= epsilon)
    return float(ttest_1samp(differences, epsilon, alternative="less").pvalue)
