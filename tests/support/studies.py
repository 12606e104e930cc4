"""Studies of simulated worlds, each made once, as the report takes them."""

from functools import cache
from typing import Any

import numpy as np

from finetune_monitor.studies.agreement.label_matrix import describe_labelers, table_notes
from finetune_monitor.studies.agreement.study import ReportSection, Study, study
from support.worlds import guesses, sample, truth

NAN = float("nan")


def people(chance: float, labelers: int = 5, images: int = 480) -> np.ndarray:
    random = np.random.default_rng(1)
    return np.stack([guesses(truth(images=images), chance, random) for _ in range(labelers)])


def scores(chance: float, images: int = 480) -> np.ndarray:
    """A model that agrees with people as somebody does who guesses as often, without ties."""
    random = np.random.default_rng(2)
    return guesses(truth(images=images), chance, random) + 0.01 * random.random(images)


@cache
def found(world: str) -> Study:
    labels, likes, persons = people(0.25), scores(0.2), 6
    labels[1, ::7] = NAN
    likes[5] = NAN
    labels, likes, persons = {
        "alike": (labels, likes, 6),
        "far better": (people(0.6), scores(0.0), 6),
        "far worse": (people(0.05), scores(0.45), 6),
        "weak": (people(0.25), scores(0.85), 6),
        "random": (people(0.25), scores(1.0), 6),
        "random people": (people(1.0), -scores(0.0), 6),
        "unrelated": (people(1.0), scores(0.0), 6),
        "reversed": (labels, -likes, 6),
        "flat": (people(0.25), np.ones(480), 6),
        "three persons": (people(0.25), likes, 3),
        "no persons": (people(0.25), likes, 0),
        "two labelers": (people(0.25, 2, 24), scores(0.25, 24), 2),
        "nothing scored": (people(0.25, 3, 12), np.full(12, NAN), 2),
        "one image": (people(0.25, 3, 1), np.ones(1), 0),
        "many": (people(0.5, 27, 60), scores(0.4, 60), 4),
    }[world]
    return study(sample(labels, likes, persons), rounds=200)


def section(found: Study, **named: Any) -> ReportSection:
    table = found.sample.table
    return ReportSection(found, describe_labelers(table), table_notes(table), **named)
