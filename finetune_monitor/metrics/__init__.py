"""One file per metric, and what they share: the protocol and the `Description`."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.base.images import Square
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import Estimate, FloatArray

if TYPE_CHECKING:
    from finetune_monitor.metrics.reference_photos import ReferencePhotos
    from finetune_monitor.models.clip import ClipEncoder
    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.rendering.pipelines import TextToImage

Made = TypeVar("Made")

Feature: TypeAlias = Float[np.ndarray, "_"]
"""What a comparing metric needs from one image; the length may differ between images."""


@runtime_checkable
class Metric(Protocol):
    """Computes scores of images.

    name: the key used everywhere: record, TensorBoard tag, W&B column, stopping rule.
    higher_is_better: the direction, for plots, tables, and stopping rules.
    bounds: lowest and highest possible score of an image.

    A metric with more to describe has a method `describe` that returns a `Description`; if it only needs to describe
    its columns, an attribute `columns` is enough. A metric that a config can name also has a method `for_run` and a
    dataclass `Options`; see `finetune_monitor.training.registry`.
    """

    name: str
    higher_is_better: bool
    bounds: tuple[float, float]

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Columns by name, each with one value per image; NaN if an image cannot be measured.

        All metrics get the same image objects, which are copies; those that one has changed are replaced for the next.
        """
        ...


@dataclass(frozen=True)
class Description:
    """A metric's description of itself; every part is optional.

    columns: its columns by name. The column with the metric's own name has the metric's bounds and, unless it says that
        it has none, the metric's direction; a column that is not described here is a side column without a direction.
    weights: the models and photos that determine what a score means, each with its SHA-256; runs are not compared if
        these differ.
    ceilings: by column, the score of the real photos against each other.
    thumbnails: small versions of the photos, by their SHA-256 in `weights`.
    notice: a sentence to show wherever the scores appear ("demo scores ...").
    """

    columns: Mapping[str, ScoreColumn] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    ceilings: Mapping[str, Estimate] = field(default_factory=dict)
    thumbnails: Mapping[str, Image] = field(default_factory=dict)
    notice: str = ""


@runtime_checkable
class Described(Protocol):
    """A metric that describes more than its name, direction, and bounds."""

    def describe(self) -> Description: ...


@runtime_checkable
class Compares(Protocol):
    """A metric that compares images with each other, including those of other processes."""

    def features(self, images: Sequence[Image], cells: Sequence[Cell]) -> Sequence[Feature | None]:
        """The features that it needs from each image; None if there are none."""
        ...

    def compare(self, features: Sequence[Feature | None], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image, from the features of the entire grid."""
        ...


@runtime_checkable
class OfModel(Protocol):
    """A metric that measures the model itself, with the pipeline that renders the grid."""

    def measure(self, pipeline: "TextToImage", size: tuple[int, int]) -> Mapping[str, FloatArray]:
        """For each column, one value per draw of noise; the draws are the same in every evaluation.

        Args:
            pipeline: has the live modules, in eval mode and without gradients.
            size: height and width of the grid's images in pixels.
        """
        ...


@runtime_checkable
class Derives(Protocol):
    """A metric with scores of an evaluation as a whole, not of single images."""

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """Its scores at the last evaluation; a score that is undefined is left out."""
        ...


@dataclass(frozen=True)
class RunContext:
    """What a run provides to the metrics that its config names.

    photos: the training photos of the subject; None if they cannot be read.
    held_out: other photos of the subject.
    device: the torch device that networks run on.
    prompts: the prompts of the grid; `score` may see only some of its cells.
    options: the options of all metrics that the config names, by name.
    instance_prompt: the prompt that the photos are trained with.
    class_images: the folder with images of other people, which may be filled only before the first evaluation.
    captions: the prompts of photos that have their own.
    squares: the part of a photo that training uses; of photos that are not in it, the largest square in the center.
    shared: networks that several metrics share, by a key that identifies them.
    """

    photos: Sequence[Path] | None
    held_out: Sequence[Path]
    device: Any
    prompts: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    class_images: Path | None = None
    instance_prompt: str = ""
    captions: Mapping[Path, str] = field(default_factory=dict)
    squares: Mapping[Path, Square] = field(default_factory=dict)
    shared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def share(self, key: Any, make: Callable[[], Made]) -> Made:
        """The object made for this key earlier, or a new one."""
        if key not in self.shared:
            self.shared[key] = make()
        found: Made = self.shared[key]
        return found

    def references(self) -> "ReferencePhotos":
        """The training photos and the held-out ones, which all metrics share, so that each is read once.

        Raises:
            UserError: lists the photos that cannot be read.
        """
        from finetune_monitor.metrics.reference_photos import ReferencePhotos

        return self.share(("references", None), lambda: ReferencePhotos.read(self.photos or [], self.held_out))

    def clip(self, clip: str, pretrained: str | None) -> "ClipEncoder":
        """The encoder of a CLIP model. Metrics that name the same model share it, so each image is encoded once.

        Raises:
            UserError: its weights are not available, or its activation does not match them.
        """
        from finetune_monitor.models.clip import ClipEncoder, resolve_clip

        source = resolve_clip(clip, pretrained)
        return self.share(("clip", source.id), lambda: ClipEncoder(source, device=self.device))

    def faces(self, recognizer: str) -> "FaceReader":
        """The face reader for a recognizer. Metrics that name the same recognizer share it.

        Raises:
            UserError: the recognizer is not available or cannot be loaded.
        """
        from finetune_monitor.models.face_reader import FaceReader

        return self.share(("faces", recognizer), lambda: FaceReader(recognizer, self.device))


@dataclass(frozen=True)
class Descriptions:
    """The descriptions of all metrics of a run, in order.

    Raises:
        ValueError: there is no metric with a score, or two metrics have the same name or a column of the same name.
    """

    by_metric: Mapping[str, Description]

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> "Descriptions":
        found = [(metric.name, describe(metric)) for metric in metrics]
        names = [name for name, _ in found]
        has_score = any(column.is_main for _, each in found for column in each.columns.values())
        if not has_score or len(set(names)) != len(names):
            raise ValueError(
                f"metrics: found {names}, expected at least one metric with a score and no duplicate names"
            )
        _check_owners(found)
        return cls(dict(found))

    @property
    def columns(self) -> dict[str, ScoreColumn]:
        """Every column that a metric describes."""
        return {name: column for each in self.by_metric.values() for name, column in each.columns.items()}

    @property
    def ceilings(self) -> dict[str, Estimate]:
        return {name: ceiling for each in self.by_metric.values() for name, ceiling in each.ceilings.items()}

    @property
    def thumbnails(self) -> dict[str, Image]:
        return {sha256: image for each in self.by_metric.values() for sha256, image in each.thumbnails.items()}

    def to_json(self) -> dict[str, Any]:
        """The metrics in the format of run.json: what makes scores comparable, and how to show them."""
        main = {name: column.direction_json() for name, column in self.columns.items() if column.is_main}
        weights = {name: {**each.weights, **_notice(each)} for name, each in self.by_metric.items()}
        return {
            "metrics": main,
            "weights": {name: found for name, found in weights.items() if found},
            "columns": {name: column.to_json() for name, column in self.columns.items()},
        }


def _check_owners(described: Sequence[tuple[str, Description]]) -> None:
    """Check that every column belongs to one metric: a second one would overwrite it."""
    owners: dict[str, str] = {}
    for metric, description in described:
        for name in description.columns:
            if (owner := owners.setdefault(name, metric)) != metric:
                raise ValueError(
                    f"metrics: {owner} and {metric} both have a column {name}, expected one metric for each column; "
                    "rename it in one of them"
                )


def problem_of(metric: Metric) -> str:
    """What is wrong with a metric's name, direction, or bounds; empty if they can be recorded."""
    if not isinstance(metric.name, str) or not metric.name:
        return f"name: found {reprlib.repr(metric.name)}, expected a text"
    if not isinstance(metric.higher_is_better, bool | None):
        return f"higher_is_better: found {reprlib.repr(metric.higher_is_better)}, expected True or False"
    try:
        low, high = map(float, metric.bounds)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if low < high:
        return ""
    return f"bounds: found {reprlib.repr(metric.bounds)}, expected the lowest and the highest score"


def describe(metric: Metric) -> Description:
    """The metric's description, with its own column first.

    Raises:
        TypeError: its method `describe` returns something else.
    """
    said = metric.describe() if isinstance(metric, Described) else Description(said_columns(metric))
    if not isinstance(said, Description):
        raise TypeError(f"metric {metric.name}: describe returned {reprlib.repr(said)}, expected a Description")
    low, high = metric.bounds
    own = replace(said.columns.get(metric.name, ScoreColumn()), bounds=(float(low), float(high)))
    if own.higher_is_better is not None:
        own = replace(own, higher_is_better=metric.higher_is_better)
    columns = {metric.name: own, **{name: column for name, column in said.columns.items() if name != metric.name}}
    return replace(said, columns={name: replace(column, metric=metric.name) for name, column in columns.items()})


def said_columns(metric: Metric | type) -> Mapping[str, ScoreColumn]:
    """The attribute `columns` of a metric or its class; empty if there is none."""
    said = getattr(metric, "columns", None)
    if not isinstance(said, Mapping) or not all(isinstance(column, ScoreColumn) for column in said.values()):
        return {}
    return said


def unwrapped(metric: Metric) -> Metric:
    """The metric inside a wrapper that adds to it, or the metric itself."""
    while hasattr(metric, "wrapped"):
        metric = metric.wrapped
    return metric


def _notice(description: Description) -> dict[str, str]:
    return {"notice": description.notice} if description.notice else {}
