"""How well an image matches its prompt: the cosine of CLIP embeddings, alone and relative to the other prompts."""

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
from finetune_monitor.record.curve import changes
from finetune_monitor.record.evaluation import Evaluation, by_prompt
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray, direction
from finetune_monitor.stats.intervals import t_change

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.clip import ClipEncoder

NAME = "clip_score"

MARGIN = "prompt_margin"
"""How much better an image matches its own prompt than the grid's others; measured if there are two or more prompts."""

WORST = "worst_prompt_margin"
"""The margin of the worst prompt; an ignored prompt shows up here but hardly in the mean over all prompts."""

SCALE = 100.0
"""The factor of torchmetrics' CLIPScore; Hessel et al. multiply by 2.5."""


class ClipScore:
    """Cosine between an image and its prompt, called CLIP-T in DreamBooth (Ruiz et al. 2023), in two forms.

    Columns of `score`:
        clip_score: 100 max(cosine, 0), 0 to 100 (Hessel et al. 2021, on torchmetrics' scale; torchmetrics averages
            before it takes the maximum, here each image has its own). The prompt is used as is, without "A photo
            depicts".
        prompt_margin: the cosine minus the mean cosine with the grid's other prompts, -2 to 2; needs at least two
            prompts. A prompt that is not in the grid is compared with all prompts of the grid.
        worst_prompt_margin: of an evaluation, the lowest mean margin of any prompt that the base model follows. If the
            mean of a prompt is below 0 at step 0, the same seeds would show that again: the prompt is left out, unless
            its interval there reaches above 0, and the margin has fallen since by more than chance. As the minimum of
            several means, it is biased below that prompt's own mean; the alarm therefore waits for the entire interval
            or for two evaluations in a row.

    The mean margin over all prompts of a grid, with equally many images each, is 0 in expectation if the images no
    longer depend on the prompt. The margin of a single prompt may be below 0: its images then look like another
    prompt's. Measured on the demo without prior preservation, with 32 images per prompt, at steps 0 and 300: .24 and
    .10 for both prompts together, .01 and -.12 for the "black and white" one. clip_score went from 47 to 38 and
    fluctuated in between (32 to 45 on 8 images).

    Prompts are compared including the rare token. On the demo's model, leaving the token out raised clip_score by 5 to
    8 at every step and reduced margins and their noise alike to about 3/4, so it showed nothing more.

    Args:
        clip: a model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` shared with other metrics.
        pretrained: the tag of its weights in open_clip; ignored for a folder and an encoder.
        prompts: the prompts of the grid.
        device: the device that CLIP runs on, in float32; ignored if an encoder is given, which has its own.

    Raises:
        UserError: weights or tokenizer are not available, or CLIP's activation does not match the weights.
    """

    name = NAME
    higher_is_better = True
    bounds = (0.0, SCALE)

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        clip: str = CLIP
        pretrained: str | None = PRETRAINED

    columns: ClassVar = {
        NAME: ScoreColumn(True, bounds, ignores=("prompts",), unit="100 x cosine similarity"),
        MARGIN: ScoreColumn(True, (-2.0, 2.0), needs="monitor.grid.prompts.1"),
        WORST: ScoreColumn(
            True,
            (-2.0, 2.0),
            over="run",
            needs="monitor.grid.prompts.1",
            alarm=0.0,
            worst_of=MARGIN,
            says="a prompt is ignored: its images match the grid's other prompts better; stop earlier, lower the "
            "learning rate, or add a class prompt in its style",
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
                "clip": self._clip.identity,
                **({"prompts": _described(self._prompts)} if self._has_margin else {}),
            },
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "ClipScore":
        """The metric as configured for a run."""
        return cls(run.clip(options.clip, options.pretrained), prompts=run.prompts)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image (RGB)."""
        subjects = [place for place, cell in enumerate(cells) if not cell.is_probe]
        found = self._score([images[place] for place in subjects], [cells[place].prompt for place in subjects])
        whole = {name: np.full(len(cells), MISSING) for name in found}
        for name, values in found.items():
            whole[name][subjects] = values
        return whole

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The margin of the worst prompt at the last evaluation, among those that the base model follows."""
        if not self._has_margin:
            return {}
        first, last = history[0], history[-1]
        floor = by_prompt(first, MARGIN) if first.step == 0 else {}
        margins = by_prompt(last, MARGIN)
        known = [own for prompt, own in margins.items() if prompt not in floor or _lost(first, last, prompt, floor)]
        return {WORST: min(known, key=lambda margin: margin.mean)} if known else {}

    def _score(self, images: Sequence[Image], own: Sequence[str]) -> dict[str, FloatArray]:
        texts = list(dict.fromkeys((*own, *self._prompts)))
        found = cosines(self._clip.embed(images).cpu().numpy(), self._clip.embed_texts(texts).cpu().numpy())
        to_own = found[np.arange(len(own)), [texts.index(prompt) for prompt in own]]
        scores = {NAME: SCALE * np.maximum(to_own, 0.0)}
        if self._has_margin:
            others = [[text != prompt and text in self._prompts for text in texts] for prompt in own]
            where = np.array(others, dtype=bool).reshape(found.shape)  # even without images
            scores[MARGIN] = to_own - found.mean(axis=1, where=where)
        return scores

    def describe(self) -> Description:
        """CLIP with the SHA-256 of its weights, and that of the prompts that margins are relative to."""
        return self._description


def _lost(first: Evaluation, last: Evaluation, prompt: str, floor: Mapping[str, Estimate]) -> bool:
    """Whether a low margin of a prompt at the last evaluation would be the training's doing: the base model follows the
    prompt, or may follow it, and the margin has fallen since by more than chance.
    """
    if not floor[prompt].mean < 0:
        return True
    before, after = ([image for image in each.images if image.cell.prompt == prompt] for each in (first, last))
    return not floor[prompt].high < 0 and direction(t_change(*changes(before, after, MARGIN))) == -1


def _described(prompts: Sequence[str]) -> dict[str, str]:
    digest = hashlib.sha256("\n".join(sorted(prompts)).encode()).hexdigest()
    return {"id": f"{len(prompts)} prompts", "sha256": digest}
