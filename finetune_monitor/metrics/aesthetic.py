"""How pleasing people would find an image, 0 to 10: a head on CLIP's image embedding, trained on human ratings."""

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

if TYPE_CHECKING:  # the config reads this file for its options, and torch takes seconds
    import torch

    from finetune_monitor.models.clip import ClipEncoder

logger = logging.getLogger(__name__)


class Aesthetic:
    """Rating of each image by a head on CLIP embeddings, 0 to 10 unless the head names another scale.

    What the head says is what is logged: a head is not bounded, and a score outside its scale is warned about once.
    Ratings follow the taste of those who rated: Western and realist photographs are favored (arXiv 2601.09896).

    Args:
        clip: model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` that other metrics use too.
        pretrained: tag of its weights in open_clip; ignored for a folder and an encoder.
        head: name of a public head, or path of one: `.safetensors` as `finetune-monitor aesthetic fit` writes it, or
            `.pth`, where it is one linear layer or a copy of a public head.
        device: where CLIP and the head run, in float32; an encoder's own where one is given.
        name: of the metric and its column; give another to a second head in the same monitor.

    Raises:
        UserError: weights that cannot be had, CLIP's activation does not fit them, or the head is for another CLIP.
    """

    name = "aesthetic"
    is_default = True
    higher_is_better = True

    @dataclass(frozen=True)
    class Options:
        """What a config may set."""

        clip: str = CLIP
        pretrained: str | None = PRETRAINED
        head: str = "sac+logos+ava1-l14-linearMSE"

    columns: ClassVar = {name: ScoreColumn()}

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
            "clip": {"id": source.id, "sha256": self._clip.sha256},
            "head": {"id": str(head), "sha256": sha256(file)},
        }
        self._description = Description(weights=weights, notice=metadata.get("notice", ""))

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Aesthetic":
        """The metric that a run's config asks for."""
        return cls(run.clip(options.clip, options.pretrained), head=options.head)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """One column of the metric's name, one rating an image (RGB)."""
        ratings = self._head.rate(self._clip.embed(images))
        self._warn_outside(ratings)
        return {self.name: ratings}

    def _warn_outside(self, ratings: FloatArray) -> None:
        low, high = self.bounds
        outside = ratings[(ratings < low) | (ratings > high)]
        if len(outside) and not self._warned:
            self._warned = True
            logger.warning(
                f"{self.name}: a score of {outside[0]:.2f} lies outside {low:g}..{high:g}; it is logged as it is: the "
                "head was trained on no such images (said once)"
            )

    def describe(self) -> Description:
        """CLIP and head with the SHA-256 of their weights; the head's notice where it has one."""
        return self._description
