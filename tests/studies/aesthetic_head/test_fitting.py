"""A fit finds what is there, is the same every time, balances what it is told to, and says nothing of what it saw."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, wasserstein_distance

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics.aesthetic_head import AestheticHead, read_head, save_head
from finetune_monitor.studies.aesthetic_head.fitting import (
    Targets,
    earth_movers_distance,
    fit_head,
    gaussian_kernel,
    predict,
    rarity,
)
from finetune_monitor.studies.aesthetic_head.settings import FitSettings

WIDTH, SCALE = 24, (0.0, 10.0)
GRADES = np.arange(1.0, 11.0)
QUICK = FitSettings(hidden=(16,), dropout=0.0, learning_rate=3e-3, max_rounds=25)


def embeddings(quality: np.ndarray, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """Unit rows far from the origin, as CLIP's are, one of whose directions is the quality."""
    random = np.random.default_rng(seed)
    direction, center = random.standard_normal((2, WIDTH))
    rows = 3 * center + quality[:, None] * direction + noise * random.standard_normal((len(quality), WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def votes(means: np.ndarray, raters: int = 200) -> np.ndarray:
    shares = np.exp(-np.square(GRADES - means[:, None]) / (2 * 1.4**2))
    random = np.random.default_rng(1)
    return np.stack([random.multinomial(raters, row / row.sum()) for row in shares]).astype(np.float64)


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, Targets, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, what people say, and the rows to train on, to stop by and to test with."""
    quality = np.random.default_rng(2).normal(size=3000)
    counts = votes(5.4 + 0.7 * quality)
    means = counts @ GRADES / counts.sum(1)
    rows = np.random.default_rng(3).permutation(3000)
    return embeddings(quality), Targets(means, SCALE, counts, GRADES), rows[:2000], rows[2000:2500], rows[2500:]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mean", "histogram"])
@pytest.mark.parametrize("balance", ["none", "lds", "resample"])
def test_it_learns_what_people_say(world, loss, balance):
    x, targets, train, validation, test = world
    fitted = fit_head(x, targets, train, validation, replace(QUICK, loss=loss, balance=balance))
    scores, wanted = predict(fitted.head, x[test]), targets.means[test]
    assert spearmanr(scores, wanted).statistic > 0.8
    assert np.abs(scores - wanted).mean() < 0.35 < np.abs(wanted.mean() - wanted).mean()
    assert fitted.losses[fitted.best_round - 1] == min(fitted.losses)
    assert fitted.head.grades == (tuple(GRADES) if loss == "histogram" else None)


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["lds", "resample"])
def test_balancing_errs_less_where_ratings_are_rare(world, balance):
    _, targets, train, validation, test = world
    x = embeddings(np.random.default_rng(2).normal(size=3000), noise=3.0)  # hard: a plain fit stays in the middle
    fits = [fit_head(x, targets, train, validation, replace(QUICK, balance=name)) for name in ("none", balance)]
    plain, balanced = (predict(fitted.head, x[test]) for fitted in fits)
    wanted = targets.means[test]
    rare = np.abs(wanted - 5.4) > 1.2
    assert np.abs(balanced - wanted)[rare].mean() < 0.9 * np.abs(plain - wanted)[rare].mean()
    assert balanced.std() > 1.1 * plain.std()


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state_alone(world):
    x, targets, train, validation, _ = world
    settings = replace(QUICK, dropout=0.3, max_rounds=3)
    torch.manual_seed(5)
    first = fit_head(x, targets, train, validation, settings).head.state_dict()
    drawn = torch.rand(3)
    torch.manual_seed(6)
    second = fit_head(x, targets, train, validation, settings).head.state_dict()
    other = fit_head(x, targets, train, validation, replace(settings, seed=1)).head.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_rows_of_the_test_part_are_never_looked_at(world):
    x, targets, train, validation, test = world
    spoiled, counts, means = x.copy(), targets.counts.copy(), targets.means.copy()
    spoiled[test], counts[test], means[test] = 1000.0, 7.0, 0.5
    settings = replace(QUICK, loss="histogram", max_rounds=3)
    clean = fit_head(x, targets, train, validation, settings)
    other = fit_head(spoiled, Targets(means, SCALE, counts, GRADES), train, validation, settings)
    assert clean.losses == other.losses
    for name, value in clean.head.state_dict().items():
        assert torch.equal(value, other.head.state_dict()[name])


def test_it_stops_when_the_validation_images_gain_nothing_and_keeps_the_best_round(world):
    x, targets, train, validation, _ = world
    shuffled = Targets(np.random.default_rng(4).permutation(targets.means), SCALE)
    settings = replace(QUICK, hidden=(64, 64), learning_rate=1e-2, patience=4)
    fitted = fit_head(x, shuffled, train, validation, settings)
    assert len(fitted.losses) == fitted.best_round + settings.patience < settings.max_rounds
    shorter = fit_head(x, shuffled, train, validation, replace(settings, max_rounds=fitted.best_round))
    for name, value in fitted.head.state_dict().items():
        assert torch.equal(value, shorter.head.state_dict()[name])


def test_the_file_holds_a_head_for_plain_embeddings(world, tmp_path):
    x, targets, train, validation, test = world
    fitted = fit_head(x, targets, train, validation, replace(QUICK, max_rounds=4))
    save_head(tmp_path / "head.safetensors", fitted.head, {})
    again, _ = read_head(tmp_path / "head.safetensors")
    assert np.array_equal(predict(again, x[test]), predict(fitted.head, x[test]))
    assert again.widths == [WIDTH, 16, 1]


def test_no_hidden_layer_gives_a_linear_head_near_the_least_squares_solution(world):
    x, targets, train, validation, test = world
    settings = replace(QUICK, hidden=(), balance="none", learning_rate=1e-2, weight_decay=0.0, max_rounds=60)
    scores = predict(fit_head(x, targets, train, validation, settings).head, x[test])
    design = np.column_stack([x.astype(np.float64), np.ones(len(x))])
    solution = np.linalg.lstsq(design[train], targets.means[train], rcond=None)[0]
    assert np.abs(scores - design[test] @ solution).max() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_handful_of_images_can_be_fitted(count):
    means = np.linspace(3, 7, count)
    fitted = fit_head(embeddings(means), Targets(means, SCALE), np.arange(count - 1), np.array([count - 1]), QUICK)
    assert np.isfinite(predict(fitted.head, embeddings(means))).all()


@pytest.mark.slow
def test_images_that_are_all_alike_or_rated_alike_give_that_rating():
    means, same = np.full(30, 4.5), np.repeat(embeddings(np.zeros(1)), 30, axis=0)
    for x in (embeddings(np.random.default_rng(0).normal(size=30)), same):
        fitted = fit_head(x, Targets(means, SCALE), np.arange(25), np.arange(25, 30), QUICK)
        assert predict(fitted.head, x) == pytest.approx(means, abs=0.3)


@pytest.mark.parametrize(
    ("targets", "rows", "settings", "reason"),
    [
        (Targets(np.ones(4), SCALE), [0, 1], replace(QUICK, loss="histogram"), "expected votes per grade"),
        (Targets(np.ones(4), SCALE), [], QUICK, "found 0 images for training and 2 for validation"),
    ],
)
def test_what_cannot_be_fitted_is_refused(targets, rows, settings, reason):
    with pytest.raises(ValueError, match=reason):
        fit_head(embeddings(np.ones(4)), targets, np.array(rows, dtype=np.int64), np.array([2, 3]), settings)


def test_a_fit_that_diverges_is_an_error_and_no_head_of_nans(world):
    x, targets, train, validation, _ = world
    damaged = x.copy()
    damaged[train[0]] = np.inf
    with pytest.raises(UserError, match="the fit diverged"):
        fit_head(damaged, targets, train, validation, QUICK)


@pytest.mark.parametrize("field", ["loss", "balance"])
def test_unknown_choices_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: found 'other', expected one of"):
        FitSettings(**{field: "other"})


def test_the_earth_movers_distance_is_that_of_the_paper_and_grows_with_the_way():
    one = torch.eye(10, dtype=torch.float64)
    distances = earth_movers_distance(one[[0, 0, 0]], one[[0, 1, 9]])
    assert distances == pytest.approx([0, (1 / 10) ** 0.5, (9 / 10) ** 0.5], abs=1e-5)
    p, q = torch.rand(2, 1, 10, dtype=torch.float64).softmax(-1)
    first = (p.cumsum(1) - q.cumsum(1)).abs().sum().item()
    assert first == pytest.approx(wasserstein_distance(GRADES, GRADES, p[0], q[0]))
    assert torch.isfinite(torch.autograd.functional.jacobian(lambda x: earth_movers_distance(x, x.detach()), p)).all()


def test_predictions_in_chunks_are_those_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    head = AestheticHead([WIDTH, 4, 1], "relu")
    x = embeddings(np.arange(30.0))
    whole = predict(head, x)
    monkeypatch.setattr("finetune_monitor.studies.aesthetic_head.fitting.CHUNK", 7)
    assert predict(head, x) == pytest.approx(whole, abs=1e-6)
    assert predict(head, x[:0]).shape == (0,)


# --- balancing ----------------------------------------------------------------------------------------------------


def test_the_kernel_is_the_gaussian_of_five_bins_with_a_spread_of_two():
    expected = np.exp([-0.5, -0.125, 0, -0.125, -0.5])
    assert gaussian_kernel() == pytest.approx(expected / expected.sum())


def test_weights_are_one_over_the_smoothed_root_of_the_counts():
    train = np.repeat([4.25, 5.25, 6.25], [4, 100, 9])
    counts = np.zeros(24)
    counts[[10, 12, 14]] = 2, 10, 3  # roots of the counts in bins of half a point, two empty bins before them
    density = np.array([np.dot(counts[bin : bin + 5], gaussian_kernel()) for bin in range(20)])
    expected = 1 / density[[8, 10, 12]]
    found = rarity(np.array([4.25, 5.25, 6.25]), train, SCALE)
    assert found / found[1] == pytest.approx(expected / expected[1])


def test_the_training_weights_have_mean_one_and_rare_ratings_weigh_more():
    train = np.clip(np.random.default_rng(0).normal(5.4, 0.7, 20_000), 1, 10)
    weights = rarity(train, train, SCALE)
    assert weights.mean() == pytest.approx(1)
    assert weights[train < 3.5].min() > 3 * weights[np.abs(train - 5.4) < 0.3].max()


@pytest.mark.parametrize("rating", [0.0, 10.0, 9.9])
def test_a_rating_far_from_all_training_ratings_weighs_as_much_as_the_rarest(rating):
    train = np.repeat([4.25, 5.25], [1, 100])
    assert rarity(np.array([rating]), train, SCALE) == pytest.approx(rarity(np.array([3.25]), train, SCALE).max())


def test_ratings_on_another_scale_have_the_same_weights():
    train = np.random.default_rng(1).uniform(2, 7, 300)
    assert rarity(train * 0.4 + 1, train * 0.4 + 1, (1.0, 5.0)) == pytest.approx(rarity(train, train, SCALE))
