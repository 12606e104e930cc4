"""How well an image fits its prompt: cosine of CLIP's embeddings, alone and against the grid's other prompts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import cosines
from finetune_monitor.models.defaults import CLIP, PRETRAINED
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, of_column, seeds, values_of
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import t_interval

if TYPE_CHECKING:  # the config reads this file for its options, and torch takes seconds
    import torch

    from finetune_monitor.models.clip import ClipEncoder

NAME = "clip_score"

MARGIN = "prompt_margin"
"""How much better an image fits its own prompt than the grid's others; measured where there are two or more."""

WORST = "worst_prompt_margin"
"""The margin of the prompt that fits worst; a prompt that is ignored shows here, and hardly in the mean over all."""

SCALE = 100.0
"""Of torchmetrics' CLIPScore; Hessel et al. multiply by 2.5."""


class ClipScore:
    """Cosine of an image and its own prompt, which DreamBooth calls CLIP-T (Ruiz et al. 2023), in two readings.

    Columns of `score`:
        clip_score: 100 max(cosine, 0), 0 to 100 (Hessel et al. 2021, on torchmetrics' scale; that averages before it
            takes the maximum, here each image has its own). The prompt is taken as it is, without "A photo depicts".
        prompt_margin: the cosine minus the mean cosine with the grid's other prompts, -2 to 2; where there are two
            prompts or more. A prompt that is not in the grid is compared with all of the grid's.
        worst_prompt_margin: of an evaluation, the least mean margin of a prompt. A prompt whose whole interval is below
            0 at step 0 is left out: the base model does not follow it itself. As the least of several it lies below
            what that prompt's mean would be alone; the alarm waits for the whole interval, or for two in a row.

    The margin's mean over all prompts of a grid, with equally many images each, is 0 in expectation where the images
    no longer depend on the prompt. A single prompt's may be below 0: its images then look like another prompt's.
    Measured on the demo without prior preservation, 32 images a prompt, steps 0 and 300: both prompts .24 and .10, the
    "black and white" one .01 and -.12. clip_score went from 47 to 38, up and down between (32 to 45 on 8 images).

    Prompts are compared with the rare token in them. Left out on the demo's model, the token moved clip_score up by 5
    to 8 at every step and shrank margins and their noise alike to about 3/4: it told no more.

    Args:
        clip: model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` that other metrics use too.
        pretrained: tag of its weights in open_clip; ignored for a folder and an encoder.
        prompts: of the grid.
        device: where CLIP runs, in float32; an encoder's own where one is given.

    Raises:
        UserError: weights or tokenizer that cannot be had, or CLIP's activation does not fit the weights.
    """

    name = NAME
    higher_is_better = True
    bounds = (0.0, SCALE)

    @dataclass(frozen=True)
    class Options:
        """What a config may set."""

        clip: str = CLIP
        pretrained: str | None = PRETRAINED

    columns: ClassVar = {
        NAME: ScoreColumn(True, bounds, ignores=("prompts",)),
        MARGIN: ScoreColumn(True, (-2.0, 2.0), needs="monitor.grid.prompts.1"),
        WORST: ScoreColumn(
            True,
            (-2.0, 2.0),
            over="run",
            needs="monitor.grid.prompts.1",
            alarm=0.0,
            says="a prompt is ignored: its images fit the grid's other prompts better; stop earlier, or learn more "
            "slowly",
        ),
    }

    def __init__(
        self,
        clip: "str | ClipEncoder" = Options.clip,
        pretrained: str | None = Options.pretrained,
        prompts: Sequence[str] = (),
        device: "str | torch.device" = "cpu",
    ) -> None:
        from finetune_monitor.models.clip import ClipEncoder

        self._clip = clip if isinstance(clip, ClipEncoder) else ClipEncoder(clip, pretrained, device)
        self._prompts = tuple(dict.fromkeys(prompts))
        self._clip.embed_texts(self._prompts)
        self._has_margin = len(self._prompts) > 1
        self._description = Description(
            columns={name: column for name, column in self.columns.items() if name == NAME or self._has_margin},
            weights={
                "clip": {"id": self._clip.source.id, "sha256": self._clip.sha256},
                **({"prompts": _described(self._prompts)} if self._has_margin else {}),
            },
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "ClipScore":
        """The metric that a run's config asks for."""
        return cls(run.clip(options.clip, options.pretrained), prompts=run.prompts)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, one value an image (RGB)."""
        subjects = [place for place, cell in enumerate(cells) if not cell.is_probe]
        found = self._score([images[place] for place in subjects], [cells[place].prompt for place in subjects])
        whole = {name: np.full(len(cells), MISSING) for name in found}
        for name, values in found.items():
            whole[name][subjects] = values
        return whole

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The margin of the prompt that fits worst at the last evaluation, of those that the base model follows."""
        if not self._has_margin:
            return {}
        floor = _margins(history[0]) if history[0].step == 0 else {}
        followed = {prompt for prompt, margin in floor.items() if not margin.high < 0}
        known = [
            margin for prompt, margin in _margins(history[-1]).items() if prompt in followed or prompt not in floor
        ]
        return {WORST: min(known, key=lambda margin: margin.mean)} if known else {}

    def _score(self, images: Sequence[Image], own: Sequence[str]) -> dict[str, FloatArray]:
        texts = list(dict.fromkeys((*own, *self._prompts)))
        found = cosines(self._clip.embed(images).cpu().numpy(), self._clip.embed_texts(texts).cpu().numpy())
        to_own = found[np.arange(len(own)), [texts.index(prompt) for prompt in own]]
        scores = {NAME: SCALE * np.maximum(to_own, 0.0)}
        if self._has_margin:
            others = [[text != prompt and text in self._prompts for text in texts] for prompt in own]
            where = np.array(others, dtype=bool).reshape(found.shape)  # of no images, too
            scores[MARGIN] = to_own - found.mean(axis=1, where=where)
        return scores

    def describe(self) -> Description:
        """CLIP with the SHA-256 of its weights, and of the prompts that margins are against."""
        return self._description


def _margins(evaluation: Evaluation) -> dict[str, Estimate]:
    """The margin of each prompt that has one."""
    images: dict[str, list[ScoredImage]] = {}
    for image in of_column(evaluation.images, MARGIN):
        images.setdefault(image.cell.prompt, []).append(image)
    found = {prompt: t_interval(values_of(own, MARGIN), seeds(own)) for prompt, own in images.items()}
    return {prompt: margin for prompt, margin in found.items() if margin.n}


def _described(prompts: Sequence[str]) -> dict[str, str]:
    digest = hashlib.sha256("\n".join(sorted(prompts)).encode()).hexdigest()
    return {"id": f"{len(prompts)} prompts", "sha256": digest}
