"""The images on which model and people, or people among themselves, differ most."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST
from finetune_monitor.studies.agreement.coefficients import LEAST_OTHERS, sample_scores
from finetune_monitor.studies.agreement.study import ReportSection, Study

IMAGES_A_GROUP = 6
"""The number of images per group."""

EXAMPLE_SIDE = 256
"""The longer side in pixels."""

EXAMPLE_QUALITY = 82


@dataclass(frozen=True)
class Example:
    """One image with all its labels and stars.

    data_uri: a JPEG as a data URI; None if there is none, or if it cannot be read.
    stars: the model's stars with clean thresholds, averaged over folds; NaN if there are none.
    mean, deviation: those of the labels.
    labels: who gave each label, from the highest to the lowest.
    """

    image: str
    caption: str
    data_uri: str | None
    score: float
    stars: float
    mean: float
    deviation: float
    labels: Mapping[int, tuple[str, ...]]


def seat_stars(study: Study) -> Float[np.ndarray, "samples"]:
    """The model's stars for each image, averaged over folds; NaN if there are none."""
    return sample_scores(study.stars)


def disagreements(section: ReportSection) -> dict[str, list[Example]]:
    """Groups of at most `IMAGES_A_GROUP` images, largest difference first; empty groups are left out.

    Only images with at least two labels are included.
    """
    study = section.study
    labels = study.sample.table.labels
    excess = seat_stars(study) - study.mean_labels
    excess[(~np.isnan(labels)).sum(axis=0) < LEAST_OTHERS] = np.nan
    groups = {
        "The model's stars are furthest above people's labels": excess,
        "The model's stars are furthest below people's labels": -excess,
        "People differ most among themselves": deviations(labels),
    }
    found = {title: [_example(section, place) for place in _largest(by)] for title, by in groups.items()}
    return {title: examples for title, examples in found.items() if examples}


def deviations(labels: Float[np.ndarray, "evaluators samples"]) -> Float[np.ndarray, "samples"]:
    """The standard deviation of each image's labels (population, ddof 0); NaN for fewer than two."""
    middle = sample_scores(labels, LEAST_OTHERS)
    found: np.ndarray = np.sqrt(sample_scores((labels - middle) ** 2))
    return found


def _data_uri(path: Path) -> str | None:
    """A small JPEG as a data URI; None if the file cannot be read."""
    try:
        image = read_image(path)
    except UserError:
        return None
    image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=EXAMPLE_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _largest(distances: Float[np.ndarray, "samples"]) -> list[int]:
    """The indices of the largest distances above 0, in descending order."""
    order = np.argsort(-np.where(np.isnan(distances), -np.inf, distances), kind="stable")[:IMAGES_A_GROUP]
    return [int(place) for place in order if distances[place] > 1e-9]


def _example(section: ReportSection, place: int) -> Example:
    study = section.study
    table = study.sample.table
    image, labels = table.images[place], table.labels[:, place]
    path = (section.images or {}).get(image)
    return Example(
        image,
        (section.captions or {}).get(image, ""),
        _data_uri(path) if path else None,
        float(study.sample.scores[place]),
        float(seat_stars(study)[place]),
        float(study.mean_labels[place]),
        float(deviations(labels[:, None])[0]),
        dict(_by_label(table.labelers, labels)),
    )


def _by_label(
    labelers: tuple[str, ...], labels: Float[np.ndarray, "evaluators"]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    for label in range(HIGHEST, LOWEST - 1, -1):
        names = tuple(name for name, given in zip(labelers, labels, strict=True) if given == label)
        if names:
            yield label, names
