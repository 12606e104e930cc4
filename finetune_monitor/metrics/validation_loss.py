"""Denoising loss on photos that are not trained on: it rises again when the training photos are memorized."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Int
from PIL import ImageOps
from PIL.Image import Image, Resampling

from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.reference_photos import ReferencePhotos, References
from finetune_monitor.record.columns import ScoreColumn, with_level
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import Estimate, FloatArray
from finetune_monitor.stats.intervals import ratio

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    from diffusers import DDPMScheduler
    from jaxtyping import Float
    from torch import Tensor

    from finetune_monitor.models.families import Family, Text
    from finetune_monitor.rendering.pipelines import TextToImage

logger = logging.getLogger(__name__)

NAME = "validation_loss"

RISE = "validation_rise"

HELD_OUT = "data.held_out"

ALARM = 0.05

DRAWS = 4
"""Number of draws of noise and noise levels; the draws are the same in every evaluation."""

PASSES = 16
"""Noised photos per draw, or more if there are more photos. A draw costs less than an image with guidance."""

AT_ONCE = 8


@dataclass(frozen=True)
class _Noised:
    """One photo at one noise level: its index, the level, and the seed of its noise."""

    photo: int
    t: int
    seed: int


class ValidationLoss:
    """Mean squared error of the predicted noise on held-out photos of the subject.

    Noise and noise levels are the same in every evaluation, so any change is due to the model; the levels are spread
    evenly over all levels of the model. For SDXL, each photo counts as an uncropped image of the grid's size. The
    interval of the loss shows how it would vary with other noise; that of the rise pairs each draw with itself.

    Columns:
        validation_loss: one value per evaluation, not per image.
        validation_rise: how far the loss is above its lowest value so far, as a share of that value.

    Args:
        photos: photos that are held out from training.
        prompt: the prompt that describes the photos in training, or one for each photo.
        alarm: the rise above which the alarm sounds.

    Raises:
        UserError: there is no photo, or one cannot be read.
    """

    name = NAME
    higher_is_better = False
    bounds = (0.0, float("inf"))

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        alarm: float = ALARM

        def __post_init__(self) -> None:
            if not self.alarm > 0:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share above 0")

    columns: ClassVar = {
        NAME: ScoreColumn(False, bounds, over="run", needs=HELD_OUT, unit="mean squared error"),
        RISE: ScoreColumn(
            False,
            (0.0, float("inf")),
            role="side",
            over="run",
            needs=HELD_OUT,
            alarm=ALARM,
            says="the model gets worse at photos of the subject that it has never seen; stop earlier, or add photos",
            unit="share of the lowest loss",
        ),
    }

    def __init__(self, photos: References, prompt: str | Sequence[str], alarm: float = ALARM) -> None:
        from finetune_monitor.base.batching import Batches

        read = ReferencePhotos.read(photos)
        self._photos, self._prompt = read.images, prompt
        self._latents: Tensor | None = None
        self._batches = Batches(AT_ONCE, "noised photos")
        self._description = Description(
            columns=with_level(self.columns, alarm),
            weights={"held_out": read.weights["references"], "prompt": prompt},
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "ValidationLoss | None":
        """The metric as configured for a run; None, with a warning, if no photo is held out."""
        from finetune_monitor.base import distributed

        if run.photos is None:
            return None
        if run.held_out:
            photos = run.references().held_out.cropped(run.squares)
            prompts = [run.captions.get(path, run.instance_prompt) for path in run.held_out]
            return cls(photos, run.instance_prompt if not run.captions else prompts, options.alarm)
        if distributed.is_main():
            logger.warning(
                "validation_loss: not measured because no photo is held out; use at least eight photos, or "
                "set data.held_out"
            )
        return None

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """Nothing: the metric does not score images."""
        return {}

    def measure(self, pipeline: "TextToImage", size: tuple[int, int]) -> Mapping[str, FloatArray]:
        """The loss, with one value per draw.

        Raises:
            ValueError: the pipeline has no UNet that predicts noise or velocity.
        """
        import torch
        from diffusers import DDPMScheduler

        from finetune_monitor.models.families import family_of

        family = family_of(pipeline)
        if family is None:
            raise ValueError(
                f"found {type(pipeline).__name__}, expected a pipeline with a UNet, such as Stable Diffusion 1.x"
            )
        if self._latents is None:
            self._latents = _encoded(pipeline, self._photos, size)
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        prompts = [self._prompt] if isinstance(self._prompt, str) else self._prompt
        text = _text(pipeline, prompts, len(self._photos))
        sizes = torch.tensor([[*size, 0, 0, *size]] * len(self._photos), device=self._latents.device).float()
        given = partial(_given, family, text, sizes)
        levels = scheduler.config.num_train_timesteps
        items = [each for draw in range(DRAWS) for each in _noised(draw, len(self._photos), levels)]
        losses = self._batches.map(items, partial(_losses, pipeline, scheduler, self._latents, given))
        return {NAME: np.array(losses).reshape(DRAWS, -1).mean(axis=1)}

    def derive(self, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
        """The rise at the last evaluation."""
        known = [np.array(each.samples[NAME]) for each in history if NAME in each.samples]
        last = np.array(history[-1].samples.get(NAME, ()))
        comparable = [each for each in known if len(each) == len(last) and np.isfinite(each).all()]
        if history[-1].step == 0 or not comparable or not len(last):
            return {}
        lowest = min(comparable, key=lambda each: float(each.mean()))
        found = ratio(last, lowest, np.arange(len(last)))
        return {RISE: replace(found, mean=found.mean - 1, low=found.low - 1, high=found.high - 1)}

    def describe(self) -> Description:
        """The photos, each with its SHA-256, the prompt, and the alarm."""
        return self._description


def _noised(draw: int, photos: int, levels: int) -> list[_Noised]:
    """One draw: every photo at evenly spread noise levels, a random one from each of several equal ranges."""
    random = np.random.default_rng(draw)
    count = max(PASSES, photos)
    t: Int[np.ndarray, count] = ((np.arange(count) + random.random(count)) / count * levels).astype(np.int64)
    which = random.permutation(count) % photos
    return [_Noised(int(which[i]), int(t[i]), draw * count + i) for i in range(count)]


def _encoded(
    pipeline: "TextToImage", photos: Sequence[Image], size: tuple[int, int]
) -> "Float[Tensor, 'photos 4 h8 w8']":
    """The center square of each photo as latents, scaled as the UNet expects."""
    import torch

    vae, rows = pipeline.vae, []
    for photo in photos:
        square = ImageOps.fit(photo, (size[1], size[0]), Resampling.LANCZOS)
        pixels = pipeline.image_processor.preprocess(square)
        rows.append(vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean.float() * vae.config.scaling_factor)
    return torch.cat(rows)


def _text(pipeline: "TextToImage", prompts: Sequence[str], photos: int) -> "Text":
    """The embeddings of each photo's prompt; a single prompt is that of all photos."""
    import torch

    from finetune_monitor.models.families import Text
    from finetune_monitor.rendering.pipelines import device_of, encode

    device = device_of(pipeline)
    known = {each: encode(pipeline, each, "", False, device) for each in dict.fromkeys(prompts)}
    rows = {name: torch.cat([known[each][name] for each in prompts]) for name in known[prompts[0]]}
    text = Text(rows["prompt_embeds"], rows.get("pooled_prompt_embeds"))
    return text.map(lambda found: found.expand(photos, *found.shape[1:]))


def _given(family: "Family", text: "Text", sizes: "Float[Tensor, 'photos 6']", photos: Sequence[int]) -> dict[str, Any]:
    """The UNet's arguments for some photos, besides latents and timesteps."""
    return family.condition(text.map(lambda rows: rows[photos]), sizes[photos])


def _losses(
    pipeline: "TextToImage",
    scheduler: "DDPMScheduler",
    latents: "Float[Tensor, 'photos 4 h8 w8']",
    given: Callable[[Sequence[int]], dict[str, Any]],
    items: Sequence[_Noised],
) -> list[float]:
    """The mean squared error of each item's prediction."""
    import torch

    from finetune_monitor.models.prediction import target

    unet = pipeline.components["unet"]
    clean = latents[[item.photo for item in items]]
    noise = torch.stack([_noise(item.seed, clean[0]) for item in items])
    t = torch.tensor([item.t for item in items], device=clean.device)
    noised = scheduler.add_noise(clean, noise, t)
    predicted = unet(noised.to(unet.dtype), t, **given([item.photo for item in items])).sample.float()
    wanted = target(scheduler, clean, noise, t)
    losses: list[float] = (predicted - wanted).square().mean(dim=(1, 2, 3)).tolist()
    return losses


def _noise(seed: int, like: "Float[Tensor, '4 h8 w8']") -> "Float[Tensor, '4 h8 w8']":
    """Noise that is the same on every device."""
    import torch

    return torch.randn(like.shape, generator=torch.Generator("cpu").manual_seed(seed)).to(like)
