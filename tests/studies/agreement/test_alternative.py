"""The alternative annotator test is the published one: figures from its authors' program on the same numbers."""

import numpy as np
import pytest

from finetune_monitor.studies.agreement.alternative import alternative_test


def world(seed: int, model_noise: float, images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Four labelers, the first with gaps, and a model; all noisy views of one truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(1, 6, images)
    labels = np.clip(truth + random.integers(-1, 2, (4, images)), 1, 5).astype(float)
    labels[0, :9] = np.nan
    noise = np.rint(model_noise * random.normal(size=images))
    return np.stack([np.clip(truth + noise, 1, 5)] * 4), labels


PUBLISHED = [
    (0, 0.5, 0.869117647, [1.0, 1.0, 1.0]),
    (1, 0.8, 0.806617647, [0.25, 0.5, 1.0]),
    (2, 1.0, 0.735539216, [0.0, 0.0, 0.25]),
    (3, 1.4, 0.657598039, [0.0, 0.0, 0.0]),
    (4, 0.7, 0.824019608, [1.0, 1.0, 1.0]),
    (5, 0.9, 0.758578431, [0.0, 0.0, 0.75]),
]


@pytest.mark.parametrize(("seed", "noise", "advantage", "rates"), PUBLISHED)
def test_it_says_what_the_published_program_says(seed, noise, advantage, rates):
    found = alternative_test(*world(seed, noise))
    assert found is not None
    assert found.advantage == pytest.approx(advantage)
    assert list(found.winning_rates.values()) == pytest.approx(rates)


def test_a_model_that_knows_the_truth_passes_and_a_random_one_does_not():
    good, bad = alternative_test(*world(0, 0.0, 300)), alternative_test(*world(0, 3.0, 300))
    assert good is not None
    assert bad is not None
    assert good.passes(0.1)
    assert not bad.passes(0.2)


def test_a_model_that_is_always_as_near_as_the_labeler_passes():
    labels = np.stack([np.tile([1.0, 5.0], 20)] * 3)
    found = alternative_test(labels, labels)
    assert found is not None
    assert found.advantage == 1
    assert found.winning_rates == {0.1: 1.0, 0.15: 1.0, 0.2: 1.0}


def test_few_images_or_labelers_are_not_tested():
    stars, labels = world(0, 1.0)
    assert alternative_test(stars[:, :29], labels[:, :29]) is None
    assert alternative_test(stars[:2], labels[:2]) is None
    found = alternative_test(stars[:, :38], labels[:, :38])  # 29 of the first labeler
    assert found is not None
    assert np.isnan(found.advantages).tolist() == [True, False, False, False]
