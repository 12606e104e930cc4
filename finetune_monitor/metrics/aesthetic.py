"""How appealing people would find an image, 0 to 10: a head on CLIP image embeddings, trained on human ratings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from PIL.Image import Image

from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.models.defaults import CLIP, PRETRAINED
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.clip import ClipEncoder

logger = logging.getLogger(__name__)


class Aesthetic:
    """Rating of each image by a head on CLIP embeddings, 0 to 10 unless the head specifies another scale.

    The head's output is logged unchanged: it is unbounded, and the first score outside the scale causes a warning.
    Ratings reflect the taste of the raters: Western and realist photographs are favored (arXiv 2601.09896).

    Args:
        clip: a model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` shared with other metrics.
        pretrained: the tag of its weights in open_clip; ignored for a folder and an encoder.
        head: the name of a public head, or the path of a head: `.safetensors` as written by `finetune-monitor aesthetic
            fit`, or `.pth` if it is a single linear layer or a copy of a public head.
        device: the device that CLIP and the head run on, in float32; ignored if an encoder is given, which has its own.
        name: the name of the metric and its column; a second head in the same monitor needs a different one.

    Raises:
        UserError: weights are not available, CLIP's activation does not match them, or the head is for another CLIP.
    """

    name = "aesthetic"
    is_default = True
    higher_is_better = True

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        clip: str = CLIP
        pretrained: str | None = PRETRAINED
        head: str = "sac+logos+ava1-l14-linearMSE"

    columns: ClassVar = {name: ScoreColumn(unit="predicted rating")}

    def __init__(
        self,
        clip: "str | ClipEncoder" = Options.clip,
        pretrained: str | None = Options.pretrained,
        head: str | Path = Options.head,
        device: "str | torch.device" = "cpu",
        name: str = name,
    ) -> None:
        from finetune_monitor.metrics.aesthetic_head import check_fit, find_head, read_head, scale_of
        from finetune_monitor.models.clip import ClipEncoder, resolve_clip

        self.name = name
        source = clip.source if isinstance(clip, ClipEncoder) else resolve_clip(clip, pretrained)
        file = find_head(head)
        self._head, metadata = read_head(file)
        check_fit(file, self._head.width, metadata, source)
        self._clip = clip if isinstance(clip, ClipEncoder) else ClipEncoder(source, device=device)
        self._head.to(self._clip.device)
        self.bounds = scale_of(metadata)
        self._warned = False
        weights = {
            "clip": self._clip.identity,
            "head": {"id": str(head), "sha256": sha256(file)},
        }
        own = {name: type(self).columns[type(self).name]}
        self._description = Description(own, weights=weights, notice=metadata.get("notice", ""))

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Aesthetic":
        """The metric as configured for a run."""
        return cls(run.clip(options.clip, options.pretrained), head=options.head)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """One column with the metric's name: one rating per image (RGB)."""
        ratings = self._head.rate(self._clip.embed(images))
        self._warn_outside(ratings)
        return {self.name: ratings}

    def _warn_outside(self, ratings: FloatArray) -> None:
        low, high = self.bounds
        outside = ratings[(ratings < low) | (ratings > high)]
        if len(outside) and not self._warned:
            self._warned = True
            logger.warning(
                f"{self.name}: a score of {outside[0]:.2f} is outside {low:g}..{high:g} and is logged unchanged: the "
                "head was not trained on such images (reported once)"
            )

    def describe(self) -> Description:
        """CLIP and the head with the SHA-256 of their weights, and the head's notice, if any."""
        return self._description
