"""Measure the cost of comparing scores with people's labels, the leakage if thresholds are tested on their own images,
and the result for a public model on real ratings.

python benchmarks/agreement.py speed
python benchmarks/agreement.py leakage
python benchmarks/agreement.py ratings --data DIR

`ratings` needs the ratings of Göring et al. 2023 (`avt_2022_per_rater.csv`, `avt_2022_nima.csv`).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import ROOT, SECONDS, alternate, comparison, listing, publish_section, seconds, table
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import cohen_kappa_score

from finetune_monitor.stats.estimate import shown
from finetune_monitor.stats.resampling import ROUNDS, resamples
from finetune_monitor.studies.agreement.coefficients import kappa, kendall, spearman
from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, NAIVE, PEOPLE, SHUFFLE
from finetune_monitor.studies.agreement.inputs import load
from finetune_monitor.studies.agreement.settings import StudyInputs
from finetune_monitor.studies.agreement.star_fitting import fit_buckets
from finetune_monitor.studies.agreement.study import Study, study

sys.path.insert(0, str(ROOT / "tests"))

from support.worlds import guesses, sample, truth

RESULTS = Path(__file__).with_name("AGREEMENT.md")
PREAMBLE = """# Agreement with people, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

MANY = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "leakage", "ratings"])
    parser.add_argument("--rounds", type=int, default=3, help="how often every side runs")
    parser.add_argument("--data", type=Path, help="folder with the real ratings")
    options = parser.parse_args()
    if options.what == "speed":
        measure_speed(options.rounds)
    elif options.what == "leakage":
        measure_leakage()
    elif options.data is None:
        parser.error("ratings needs --data DIR")
    else:
        measure_ratings(options.data)


# --- time ---------------------------------------------------------------------------------------------------------


def measure_speed(rounds: int) -> None:
    """Time a complete study of the article's size, and kappa, Spearman, and tau-b in a thousand resamples, two ways."""
    level = truth()
    labels, scores = people(level, 5), noisy(level)
    weights = resamples(np.repeat(np.arange(8), 64))
    draws = [np.repeat(np.arange(len(level)), row.astype(int)) for row in weights[1:]]
    ways = {
        "scipy and scikit-learn, one resample at a time": lambda: [usual(labels[0][d], labels[1][d]) for d in draws],
        "by weights, all resamples at once": lambda: [
            f(labels[0], labels[1], weights) for f in (kappa, spearman, kendall)
        ],
    }
    one = alternate({name: seconds(action) for name, action in ways.items()}, rounds)
    whole = alternate({name: seconds(action) for name, action in jobs(labels, scores).items()}, rounds)
    parts = [
        f"Kappa, Spearman, and tau-b of two labelers over 512 images in {ROUNDS:,} resamples:",
        comparison(one, SECONDS),
        "Complete jobs:",
        listing(whole, SECONDS),
    ]
    publish_section(RESULTS, PREAMBLE, "speed", "Time", parts)


def jobs(labels: np.ndarray, scores: np.ndarray) -> dict[str, Callable[[], object]]:
    many = truth(images=MANY)
    many_labels, many_scores = people(many, 5), noisy(many)
    larger = truth(images=2000)
    larger_labels, larger_scores = people(larger, 5), noisy(larger)
    return {
        f"512 images, 5 labelers, 8 people: every statistic, {ROUNDS:,} resamples": lambda: study(
            sample(labels, scores)
        ),
        "2,000 images": lambda: study(sample(larger_labels, larger_scores)),
        f"exact buckets of {MANY:,} images with 5 labels each": lambda: fit_buckets(many_scores, many_labels),
    }


def usual(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    kappa_xy = cohen_kappa_score(x, y, weights="quadratic", labels=[1, 2, 3, 4, 5])
    return kappa_xy, spearmanr(x, y).statistic, kendalltau(x, y).statistic


def people(level: np.ndarray, count: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return np.stack([guesses(level, 0.3, random) for _ in range(count)])


def noisy(level: np.ndarray) -> np.ndarray:
    return level + np.random.default_rng(2).normal(size=len(level))


# --- leakage ------------------------------------------------------------------------------------------------------


def measure_leakage() -> None:
    """A model that knows only people, and a good one, with both kinds of folds."""
    random = np.random.default_rng(0)
    person = np.repeat(np.arange(5), 40)
    level = truth()
    worlds = {
        "knows the rating of each of 5 people, ignores the image (200 images)": sample(
            np.stack([guesses(person + 1, 0.1, random) for _ in range(5)]),
            person + 0.01 * random.random(200),
            persons=5,
        ),
        "good (512 images)": sample(people(level, 5), noisy(level)),
    }
    rows = []
    for name, world in worlds.items():
        found = study(world)
        for kind, title in ((NAIVE, "the same images"), (MODEL, "other people"), (CONSTANT, "(the constant)")):
            own, others = found.mean.against_labeler[kind], found.mean.against_others[kind]
            rows.append((name, title, shown(own["kappa"]), shown(own["mae"]), shown(others["corrected"])))
    header = ("the model", "thresholds tested on", "kappa", "MAE", "corrected grade")
    publish_section(RESULTS, PREAMBLE, "leakage", "Leakage", [table(header, rows)])


# --- real ratings -------------------------------------------------------------------------------------------------


def measure_ratings(data: Path) -> None:
    files = (data / "avt_2022_per_rater.csv",), data / "avt_2022_nima.csv"
    loaded = load(StudyInputs(*files, min_coverage=0.95))
    parts = [
        "NIMA's scores of 146 images, compared with the raters who rated at least 95% of them. The people in the "
        "images are not known."
    ]
    for metric, material in loaded.materials.items():
        parts += [f"### {metric}", *described(study(material.sample))]
    publish_section(RESULTS, PREAMBLE, "ratings", "NIMA and real ratings", parts)


def described(found: Study) -> list[str]:
    raters = len(found.seats)
    first = (
        f"{raters} raters; Krippendorff's alpha {shown(found.alpha)}; Spearman between the score and the mean label "
    )
    if found.refused:
        return [f"{first}{shown(found.overall['spearman'])}: no stars."]
    rows = []
    for name in (PEOPLE, MODEL, NAIVE, CONSTANT, SHUFFLE):
        own, others = found.mean.against_labeler[name], found.mean.against_others[name]
        numbers = (own["kappa"], own["mae"], others["raw"], others["corrected"])
        rows.append((name, *map(shown, numbers)))
    tests = {"the model": found.alternative, "the constant": found.constant_alternative}
    passed = [
        f"{name} wins over {each.winning_rates[0.15]:.0%} of the raters"
        for name, each in tests.items()
        if each is not None
    ]
    return [
        f"{first}{shown(found.overall['spearman'])}. Alternative annotator test, epsilon 0.15: {', '.join(passed)}.",
        table(("", "kappa", "MAE", "raw grade", "corrected"), rows),
    ]


if __name__ == "__main__":
    main()
