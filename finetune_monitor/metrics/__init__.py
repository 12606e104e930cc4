"""One file per metric, and what they share: the protocol, and what a metric may say about itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import Estimate, FloatArray

if TYPE_CHECKING:
    from finetune_monitor.models.clip import ClipEncoder
    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.rendering.pipelines import TextToImage

Made = TypeVar("Made")

Feature: TypeAlias = Float[np.ndarray, "_"]
"""What a metric that compares images with each other needs of one; it may be of another length for each."""


@runtime_checkable
class Metric(Protocol):
    """Turns images into scores.

    name: the key everywhere: record, TensorBoard tag, W&B column, stopping rule.
    higher_is_better: the direction, for plots, tables and stopping rules.
    bounds: least and greatest score of one image.

    A metric that has more to say has a method `describe`, which returns a `Description`; one that has no more to say
    than which columns it has may have them as `columns`. One that a config may name also has a method `for_run` and a
    dataclass `Options`; see `finetune_monitor.training.registry`.
    """

    name: str
    higher_is_better: bool
    bounds: tuple[float, float]

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """One column a name, one value an image; NaN where an image cannot be measured."""
        ...


@dataclass(frozen=True)
class Description:
    """What a metric says of itself; every part may be left out.

    columns: its columns by name. The one of the metric's own name has its bounds from the metric and its direction,
        too, unless it says that there is none; one that is not described here is a side column without a direction.
    weights: the models and photos that decide what a score means, each with its SHA-256; runs in which they differ
        are not compared.
    ceilings: by column, the score of the real photos against each other.
    thumbnails: small images of the photos, by the SHA-256 that `weights` gives them.
    notice: a sentence that is shown wherever the scores are ("demo scores ...").
    """

    columns: Mapping[str, ScoreColumn] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    ceilings: Mapping[str, Estimate] = field(default_factory=dict)
    thumbnails: Mapping[str, Image] = field(default_factory=dict)
    notice: str = ""


@runtime_checkable
class Described(Protocol):
    """A metric that says more of itself than its name, direction and bounds."""

    def describe(self) -> Description: ...


@runtime_checkable
class Compares(Protocol):
    """A metric that compares images with each other: with several processes, also those of another one."""

    def features(self, images: Sequence[Image], cells: Sequence[Cell]) -> Sequence[Feature | None]:
        """What it needs of each image; None where there is nothing."""
        ...

    def compare(self, features: Sequence[Feature | None], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, one value an image, from the features of the whole grid."""
        ...


@runtime_checkable
class OfModel(Protocol):
    """A metric that looks at the model itself, with what the grid is rendered with."""

    def measure(self, pipeline: "TextToImage", size: tuple[int, int]) -> Mapping[str, FloatArray]:
        """By column one value a draw of noise, the same draws in every evaluation.

        Args:
            pipeline: its modules are the live ones, in eval mode and without gradients.
            size: height and width of the grid's images in pixels.
        """
        ...


@runtime_checkable
class Derives(Protocol):
    """A metric with scores that are of an evaluation, and of no single image."""

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """Its scores at the last evaluation; one that cannot be said is left out."""
        ...


@dataclass(frozen=True)
class RunContext:
    """What a run offers to the metrics that its config names.

    photos: of the subject, those that are trained on; None where they cannot be read.
    held_out: further photos of the subject.
    device: where networks run, as torch names it.
    prompts: of the grid; `score` may see only some of its cells.
    options: of all metrics that the config names, by name.
    instance_prompt: the one that the photos are trained with.
    class_images: where images of other people are, or will be before the first evaluation.
    shared: networks that several metrics use, by what tells them apart.
    """

    photos: Sequence[Path] | None
    held_out: Sequence[Path]
    device: Any
    prompts: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    class_images: Path | None = None
    instance_prompt: str = ""
    shared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def share(self, key: Any, make: Callable[[], Made]) -> Made:
        """What was made for this key before, or what is made now."""
        if key not in self.shared:
            self.shared[key] = make()
        found: Made = self.shared[key]
        return found

    def clip(self, clip: str, pretrained: str | None) -> "ClipEncoder":
        """The encoder of a CLIP model; metrics that name the same one share it, and each image is encoded once.

        Raises:
            UserError: its weights cannot be had, or its activation does not fit them.
        """
        from finetune_monitor.models.clip import ClipEncoder, resolve_clip

        source = resolve_clip(clip, pretrained)
        return self.share(("clip", source.id), lambda: ClipEncoder(source, device=self.device))

    def faces(self, recognizer: str) -> "FaceReader":
        """The reader of faces with a recognizer; metrics that name the same one share it.

        Raises:
            UserError: the recognizer cannot be had or loaded.
        """
        from finetune_monitor.models.face_reader import FaceReader

        return self.share(("faces", recognizer), lambda: FaceReader(recognizer, self.device))


@dataclass(frozen=True)
class Descriptions:
    """What all metrics of a run say, in the order of the metrics.

    Raises:
        ValueError: there is no metric, or two give a main column of the same name.
    """

    by_metric: Mapping[str, Description]

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> "Descriptions":
        found = [(metric.name, describe(metric)) for metric in metrics]
        names = [name for _, description in found for name, column in description.columns.items() if column.is_main]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"metrics: found {names}, expected at least one, and each name once")
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
        """What run.json has of the metrics: all that decides whether scores can be compared, and how to show them."""
        main = {name: column.direction_json() for name, column in self.columns.items() if column.is_main}
        weights = {name: {**each.weights, **_notice(each)} for name, each in self.by_metric.items()}
        return {
            "metrics": main,
            "weights": {name: found for name, found in weights.items() if found},
            "columns": {name: column.to_json() for name, column in self.columns.items()},
        }


def describe(metric: Metric) -> Description:
    """What the metric says of itself, its own column first."""
    said = metric.describe() if isinstance(metric, Described) else Description(said_columns(metric))
    own = replace(said.columns.get(metric.name, ScoreColumn()), bounds=metric.bounds)
    if own.higher_is_better is not None:
        own = replace(own, higher_is_better=metric.higher_is_better)
    columns = {metric.name: own, **{name: column for name, column in said.columns.items() if name != metric.name}}
    return replace(said, columns={name: replace(column, metric=metric.name) for name, column in columns.items()})


def said_columns(metric: Metric | type) -> Mapping[str, ScoreColumn]:
    """The columns that a metric or its class has as `columns`, where it has that."""
    said = getattr(metric, "columns", None)
    if not isinstance(said, Mapping) or not all(isinstance(column, ScoreColumn) for column in said.values()):
        return {}
    return said


def unwrapped(metric: Metric) -> Metric:
    """The metric itself, where another one adds to it."""
    while hasattr(metric, "wrapped"):
        metric = metric.wrapped
    return metric


def _notice(description: Description) -> dict[str, str]:
    return {"notice": description.notice} if description.notice else {}
