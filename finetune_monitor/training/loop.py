"""The training loop: steps, their loss, and everything in between."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, DiffusionPipeline
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.files import sha256
from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.base.progress import Progress
from finetune_monitor.models.export import fingerprint
from finetune_monitor.models.families import Text, tokenizer_of
from finetune_monitor.models.prediction import target
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.sinks import accelerate as trackers
from finetune_monitor.training import checkpoints, objective
from finetune_monitor.training.config import Config, TrainConfig
from finetune_monitor.training.data import step_seed
from finetune_monitor.training.latents import Latents, on_device
from finetune_monitor.training.optimizers import build
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.trainable import Trainable, trained_family

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints in the run directory."""

ENCODED_AT_ONCE, MOST_CACHED = 16, 1000
"""Prompts per pass of the text encoders, and the most whose embeddings are kept: 0.24 MB each for SD v1.5, 0.64 MB for
SDXL."""

LOG_EVERY = 10
"""Steps between two readings of the loss; each reading waits for the device."""


def learning_rate_factor(schedule: str, step: int, warmup: int, total: int) -> float:
    """The factor on the learning rate for update `step` (from 1): linear warmup, then constant, cosine, or linear."""
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(trainable: Trainable, config: TrainConfig) -> Optimizer:
    """The config's optimizer with one parameter group per model; the schedule scales `initial_lr`."""
    groups = []
    for name, model in trainable.models.items():
        own = config.text_encoder_learning_rate if name != "unet" else None
        rate = own or config.learning_rate
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups.append({"params": parameters, "lr": rate, "initial_lr": rate})
    return build(config.optimizer, groups, config.weight_decay)


class Conditioning:
    """Text embeddings of a batch, the subject's prompts first, then the class's.

    They are computed once, or in every step if a text encoder is trained, or if there are more than `MOST_CACHED`.

    Args:
        encoders: the text encoders, in the order of the family.
        prompts: for each sequence of photos, the prompt of every photo.
        trained: whether the text encoders are.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        encoders: Sequence[nn.Module],
        prompts: Sequence[Sequence[str]],
        trained: bool,
        batch_size: int,
    ):
        texts = list(dict.fromkeys(prompt for each in prompts for prompt in each))
        numbers = {text: number for number, text in enumerate(texts)}
        self.family = trained_family(pipeline)
        self.encoders = encoders
        self.batch_size = batch_size
        self.device = pipeline.unet.device
        self.ids = [_tokenize(pipeline, name, texts).to(self.device) for name in self.family.text_encoders]
        self._numbers = [[numbers[prompt] for prompt in each] for each in prompts]
        self._is_uniform = all(len(set(each)) == 1 for each in prompts) and len(texts) == len(prompts)
        with torch.no_grad():
            self.cached = None if trained or len(texts) > MOST_CACHED else self._encoded_in_parts()

    def __call__(self, shown: Sequence[Sequence[int]], sizes: Float[Tensor, "b 6"]) -> dict[str, Any]:
        """The UNet's arguments besides latents and timesteps.

        Args:
            shown: the indices of each sequence's photos.
            sizes: where their views were cut from.
        """
        return self.family.condition(self.text(shown), sizes)

    def text(self, shown: Sequence[Sequence[int]]) -> Text:
        """One row per photo."""
        if self._is_uniform:  # the gradient of `expand` is the same in every run on a GPU; that of an index is not
            text = self.cached if self.cached is not None else self._encode(self.ids)
            return text.map(self._each_for_a_batch)
        numbers = [own[index] for own, indices in zip(self._numbers, shown, strict=True) for index in indices]
        if self.cached is not None:
            return self._rows(self.cached, numbers)
        used = sorted(set(numbers))
        places = on_device(used, self.device)
        return self._rows(self._encode([ids[places] for ids in self.ids]), [used.index(number) for number in numbers])

    def _each_for_a_batch(self, rows: Tensor) -> Tensor:
        """Every row as often as a batch has photos."""
        return rows[:, None].expand(-1, self.batch_size, *rows.shape[1:]).flatten(0, 1)

    def _rows(self, text: Text, numbers: Sequence[int]) -> Text:
        places = on_device(numbers, self.device)
        return text.map(lambda rows: rows[places])

    def _encode(self, ids: Sequence[Int64[Tensor, "n t"]]) -> Text:
        return self.family.encode(self.encoders, ids)

    def _encoded_in_parts(self) -> Text:
        parts = [self._encode(part) for part in zip(*(ids.split(ENCODED_AT_ONCE) for ids in self.ids), strict=True)]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Text(torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None)


@dataclass
class Trainer:
    """Everything a step needs; its randomness depends only on (seed, step, micro step, rank)."""

    config: Config
    accelerator: Accelerator
    trainable: Trainable
    prepared: dict[str, nn.Module]
    optimizer: Optimizer
    noise: DDPMScheduler
    conditioning: Conditioning
    latents: list[Latents]
    identity: Mapping[str, Any]
    step: int = 0
    loss: float = math.nan
    _window: list[Tensor] = field(default_factory=list)
    _read_at: float | None = None
    _told: bool = False

    def run(self, monitor: FinetuneMonitor | None, interrupt: Interrupt) -> StopReason | str:
        """Train from the step after `self.step` until the end, a stopping rule, a signal, or a non-finite loss.

        Raises:
            UserError: a photo can no longer be read, or a process that reads photos has ended.
        """
        total = self.config.train.max_steps
        if distributed.is_main() and (finished := self._finished(monitor)):
            logger.warning(finished)
        with Progress(total, "training", "step", self.step, distributed.is_main()) as progress:
            if monitor is not None and self.step:
                monitor.on_step_end(self.step, self.epoch)  # an interrupted run saved this step but did not evaluate it
            while self.step < total and not (monitor and monitor.decision.stop):
                self.step += 1
                self._window.append(self.train_step(self.step))
                interrupted = self._polls_signals() and interrupt.asked()
                if (interrupted or self._due()) and not math.isfinite(self._read_loss(monitor)):
                    return StopReason.NOT_FINITE
                self._forecast(monitor)
                progress.advance(1, self._numbers())
                stop = monitor is not None and not interrupted and monitor.on_step_end(self.step, self.epoch)
                if stop and self._window and not math.isfinite(self._read_loss(monitor)):  # stopped by a person
                    return StopReason.NOT_FINITE
                if stop and not (monitor and monitor.decision.stop):  # a signal during a pause
                    interrupted = interrupt.asked()
                if stop or interrupted or self._checkpoint_due():
                    self._save()
                if interrupted:
                    return StopReason.INTERRUPTED
        stopped = monitor.decision.reason if monitor and monitor.decision.stop else None
        return stopped or StopReason.MAX_STEPS

    def _finished(self, monitor: FinetuneMonitor | None) -> str:
        """Why there is nothing left to train, and how to continue; empty if there is."""
        if monitor is not None and monitor.decision.stop:
            return f"already stopped at step {self.step}: {monitor.decision.why}; to continue, change monitor.stopping"
        if self.step >= self.config.train.max_steps:
            return f"already finished at step {self.step}; to continue, raise train.max_steps"
        return ""

    def _forecast(self, monitor: FinetuneMonitor | None) -> None:
        """Log once what monitoring will cost, based on the time between two loss readings without an evaluation."""
        if monitor is None or self._told or self.step % LOG_EVERY:
            return
        now, last = time.monotonic(), monitor.latest.step if monitor.latest else 0
        if self._read_at is not None and last < self.step - LOG_EVERY:
            self._told = True
            if distributed.is_main():
                tqdm.write(monitor.forecast((now - self._read_at) / LOG_EVERY))  # past the bar
        self._read_at = now

    @property
    def epoch(self) -> float:
        """How often each photo of the subject has been seen; with repeats, the photo that is repeated least."""
        train = self.config.train
        seen = self.step * train.batch_size * train.gradient_accumulation * distributed.world_size()
        return seen / len(self.latents[0])

    def train_step(self, step: int) -> Float[Tensor, ""]:
        """Run one optimizer update; returns its mean loss, still on the device, NaN if a gradient was not finite."""
        train = self.config.train
        losses = []
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(train.lr_schedule, step, train.warmup_steps, train.max_steps)
            group["lr"] = group["initial_lr"] * factor
        for micro in range(train.gradient_accumulation):
            with self.accelerator.accumulate(*self.prepared.values()):
                loss = self._loss(step, micro)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.trainable.parameters.values(), train.max_grad_norm)
                    if self.accelerator.scaler is None:  # a scaler skips such an update; without one it is applied
                        loss = torch.where(norm.isfinite(), loss, math.nan)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        if self.trainable.ema is not None:
            self.trainable.ema.step(self.trainable.parameters.values())
        return torch.stack(losses).mean()

    def _loss(self, step: int, micro: int) -> Float[Tensor, ""]:
        train, device = self.config.train, self.accelerator.device
        seed = step_seed(self.config.seed, step, micro, distributed.rank())
        torch.manual_seed(seed)  # dropout uses the global generator
        generator = torch.Generator(device).manual_seed(seed)
        place = self._place(step, micro)
        drawn = [part.draw(place, generator) for part in self.latents]
        latents, sizes = (torch.cat(each) for each in zip(*drawn, strict=True))
        noise = torch.randn(latents.shape, generator=generator, device=device)
        t = objective.random_timesteps(self.noise, len(latents), generator)
        given = self.conditioning(self._shown(place), sizes)
        predicted = self.prepared["unet"](self.noise.add_noise(latents, noise, t), t, **given).sample
        weights = objective.min_snr_weights(self.noise, t, train.snr_gamma) if train.snr_gamma else None
        wanted = target(self.noise, latents, noise, t)
        return objective.denoising_loss(predicted, wanted, weights, train.batch_size, train.prior_loss_weight)

    def _place(self, step: int, micro: int) -> int:
        """The number of this process's batch, counted over all processes."""
        turn = (step - 1) * self.config.train.gradient_accumulation + micro
        return turn * distributed.world_size() + distributed.rank()

    def _shown(self, place: int) -> list[list[int]]:
        """The indices of a batch's photos, in the order of its latents."""
        size = self.config.train.batch_size
        return [part.photos.indices(place * size, size) for part in self.latents]

    def close(self) -> None:
        """End the processes that read photos."""
        for part in self.latents:
            part.close()

    def _due(self) -> bool:
        """Whether the loss must be read now: at intervals, and before anything is evaluated or saved."""
        judged = self.config.monitor.enabled and self.step % self.config.monitor.every == 0
        return self.step % LOG_EVERY == 0 or judged or self._checkpoint_due()

    def _checkpoint_due(self) -> bool:
        return self.step % self.config.train.checkpoint_every == 0 or self.step == self.config.train.max_steps

    def _read_loss(self, monitor: FinetuneMonitor | None) -> float:
        """The mean loss since the last reading, over all processes; also recorded, and logged to the trackers."""
        mean = self.accelerator.reduce(torch.stack(self._window).mean(), reduction="mean")
        self._window.clear()
        self.loss = mean.item()
        rate = self.optimizer.param_groups[0]["lr"]
        trackers.log(self.accelerator, {"train/loss": self.loss, "train/learning_rate": rate}, self.step)
        if monitor is not None:
            monitor.log_training(self.step, self.loss, rate)
        return self.loss

    def _polls_signals(self) -> bool:
        """Whether to check for signals now: at intervals, because several processes need a collective for it."""
        return distributed.world_size() == 1 or self.step % LOG_EVERY == 0

    def _numbers(self) -> dict[str, float]:
        """Loss and learning rate, as far as they are known."""
        numbers = {"loss": self.loss, "lr": self.optimizer.param_groups[0]["lr"]}
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    def _save(self) -> None:
        """Save a checkpoint, written by the first process while the others wait; all fail if it does."""
        failed: OSError | None = None
        if distributed.is_main():
            try:
                self._write_checkpoint()
            except OSError as error:
                failed = error
        if (failed := distributed.gather(failed)[0]) is not None:
            raise failed

    def _write_checkpoint(self) -> None:
        scaler = self.accelerator.scaler
        checkpoints.save(
            self.config.output_dir / CHECKPOINTS,
            self.step,
            self.trainable,
            self.optimizer,
            self.identity,
            scaler.state_dict() if scaler else {},
            self.config.train.keep_checkpoints,
        )


def identity(config: Config, photos: Sequence[TrainingPhoto]) -> dict[str, Any]:
    """What a resumed run must share with the checkpoint: what is trained, on what, and in which order.

    Photos and the files of a model are identified by their content, wherever they are.
    """
    content = config.model_dump(mode="json")
    train = ["method", "rank", "lora_alpha", "lora_layers", "text_encoder", "optimizer", "ema_decay", "batch_size"]
    train += ["gradient_accumulation", "cache_latents"]
    data = ["instance_prompt", "class_prompt", "resolution", "crop", "random_crop", "random_flip"]
    digest = _digest("".join(sha256(photo.path) for photo in photos))
    held_out = config.data.held_out
    plain = [TrainingPhoto(photo.path, config.data.instance_prompt, square=photo.square) for photo in photos]
    prompts = [[photo.prompt, photo.repeats] for photo in photos]
    return {
        **_model_identity(config),
        "seed": content["seed"],
        **{f"train.{key}": content["train"][key] for key in train},
        **{f"data.{key}": content["data"][key] for key in data},
        "data.photos": f"{len(photos)} with the SHA-256 {digest[:16]}",
        "data.crops": _digest(json.dumps([photo.square for photo in photos]))[:16],
        "data.captions": None if list(photos) == plain else _digest(json.dumps(prompts))[:16],
        "data.held_out": held_out
        if isinstance(held_out, int)
        else None,  # photos in a separate folder do not affect training
        "prior_preservation": config.prior_preservation,
    }


def _model_identity(config: Config) -> dict[str, Any]:
    """The base model and the parts that replace or extend its own."""
    digest = _content(config.model)
    model = {"model.sha256": digest} if digest else {"model": config.model, "model.sha256": None}
    vae = {"vae": config.vae, "vae.sha256": _content(config.vae)} if config.vae else {"vae": None}
    return {
        **model,
        "revision": config.revision,
        **vae,
        "embeddings": [sha256(path) for path in config.embeddings],
        "layout": config.layout,
    }


def _content(model: str) -> str | None:
    """What identifies the content of a folder or file; None for a hub id."""
    path = Path(model).expanduser()
    return fingerprint(path) if path.exists() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _tokenize(pipeline: Any, text_encoder: str, prompts: Sequence[str]) -> Int64[Tensor, "n t"]:
    """Token ids for a text encoder, padded and truncated to its tokenizer's length, as in Stable Diffusion."""
    tokenizer = getattr(pipeline, tokenizer_of(text_encoder))
    ids: Tensor = tokenizer(
        [pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids
