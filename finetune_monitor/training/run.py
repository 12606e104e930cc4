"""One run from its config to the exported weights."""

from contextlib import AbstractContextManager, nullcontext

from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionPipeline

from finetune_monitor import ranks
from finetune_monitor.errors import UserError
from finetune_monitor.evaluation import StopReason
from finetune_monitor.export import export_weights
from finetune_monitor.grid import PromptGrid
from finetune_monitor.monitor import FinetuneMonitor
from finetune_monitor.record import RUN, lock
from finetune_monitor.sinks import accelerate as trackers
from finetune_monitor.stopping import Patience
from finetune_monitor.training import checkpoints
from finetune_monitor.training.class_images import load_class_images
from finetune_monitor.training.config import Config
from finetune_monitor.training.data import cache_latents
from finetune_monitor.training.interrupts import watched_signals
from finetune_monitor.training.loop import Conditioning, Trainer, identity, make_optimizer
from finetune_monitor.training.models import (
    PRECISIONS,
    Trainable,
    average,
    load_pipeline,
    lower_precision,
    make_trainable,
)
from finetune_monitor.training.preflight import Inputs, check_space, find_inputs


def run(config: Config) -> int:
    """Train as the config says; returns the exit status (0, or 128 + the signal that ended it).

    Raises:
        UserError: something that the user can put right, before training begins.
    """
    accelerator = make_accelerator(config)
    inputs = find_inputs(config, accelerator.device)
    checkpoint = checkpoints.find(config.output_dir / "checkpoints", config.train.resume)
    if checkpoint is not None:
        checkpoints.check_identity(checkpoint, identity(config))
    with watched_signals() as interrupt, _holding(config):
        pipeline = load_pipeline(inputs.model).to(accelerator.device)
        trainer = make_trainer(config, accelerator, pipeline, inputs, checkpoint)
        monitor = make_monitor(config, accelerator, pipeline, trainer, inputs)
        reason = trainer.run(monitor, interrupt)
        _finish(config, trainer, pipeline, monitor, reason)
        trackers.end(accelerator)
    return interrupt.exit_status


def make_accelerator(config: Config) -> Accelerator:
    """Accelerate as the config and the launcher set it up.

    Raises:
        UserError: this machine cannot train in the precision asked for.
    """
    try:
        return Accelerator(
            mixed_precision=config.train.mixed_precision,
            gradient_accumulation_steps=config.train.gradient_accumulation,
        )
    except ValueError as error:
        raise UserError(f"train.mixed_precision={config.train.mixed_precision}: {error}") from error


def make_trainer(
    config: Config,
    accelerator: Accelerator,
    pipeline: StableDiffusionPipeline,
    inputs: Inputs,
    checkpoint: checkpoints.Checkpoint | None,
) -> Trainer:
    """Draw class images, encode all photos, open what is trained and go back to the checkpoint."""
    data, train = config.data, config.train
    autocast = PRECISIONS[train.mixed_precision]
    subjects = cache_latents(pipeline.vae, inputs.photos, data.resolution, data.random_flip)
    prompts, classes = [data.instance_prompt], None
    if config.prior_preservation:
        class_images = load_class_images(pipeline, data, config.monitor.grid, autocast)
        classes = cache_latents(pipeline.vae, class_images, data.resolution, data.random_flip, "class images")
        prompts.append(data.class_prompt or "")
    trainable = make_trainable(pipeline, train, config.seed)
    lower_precision(pipeline, autocast)
    check_space(config, *_sizes(pipeline, trainable))
    trainable.ema = average(trainable, train.ema_decay)
    optimizer = make_optimizer(trainable, train)
    if checkpoint is not None:
        checkpoints.restore(checkpoint, trainable, optimizer)
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
    prepared = {name: accelerator.prepare(model.train()) for name, model in trainable.models.items()}
    encoder = prepared.get("text_encoder", pipeline.text_encoder)
    return Trainer(
        config,
        accelerator,
        trainable,
        prepared,
        accelerator.prepare(optimizer),
        DDPMScheduler.from_config(pipeline.scheduler.config),
        Conditioning(pipeline, encoder, prompts, "text_encoder" in prepared),
        subjects,
        classes,
        step=checkpoint.step if checkpoint is not None else 0,
    )


def make_monitor(
    config: Config, accelerator: Accelerator, pipeline: StableDiffusionPipeline, trainer: Trainer, inputs: Inputs
) -> FinetuneMonitor | None:
    """The monitor of the config, sharing Accelerate's trackers; it evaluates step 0 at once in a new run."""
    resume_step = _resume_step(config, trainer.step)
    chosen = config.monitor.sinks.model_dump()
    sinks = trackers.start_trackers(accelerator, config.output_dir, chosen, resume_step)
    if not config.monitor.enabled:
        return None
    grid = config.monitor.grid
    return FinetuneMonitor(
        pipeline,
        PromptGrid(
            grid.prompts,
            grid.seeds,
            grid.negative_prompt,
            grid.steps,
            grid.guidance,
            grid.sampler,
            (config.data.resolution, config.data.resolution),
        ),
        inputs.metrics,
        config.output_dir,
        sinks,
        [Patience(rule.metric, rule.patience, rule.min_delta) for rule in config.monitor.stopping],
        config.monitor.every,
        autocast=PRECISIONS[config.train.mixed_precision],
        live_weights=trainer.trainable.live_weights,
        hparams=config.flat(),
        config_yaml=config.to_yaml(),
        resume_step=resume_step,
    )


def _holding(config: Config) -> AbstractContextManager:
    """The run directory's lock, where no monitor will take it."""
    return nullcontext() if config.monitor.enabled or not ranks.is_main() else lock(config.output_dir)


def _resume_step(config: Config, step: int) -> int | None:
    """Where the record goes on: also from step 0, in a run that ended before its first checkpoint."""
    recorded = (config.output_dir / RUN).exists() and config.train.resume == "auto"
    return step if step or recorded else None


def _sizes(pipeline: StableDiffusionPipeline, trainable: Trainable) -> tuple[int, int]:
    """Parameters with gradients, and the others."""
    trained = sum(parameter.numel() for parameter in trainable.parameters.values())
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    return trained, sum(parameter.numel() for part in parts for parameter in part.parameters()) - trained


def _finish(
    config: Config,
    trainer: Trainer,
    pipeline: StableDiffusionPipeline,
    monitor: FinetuneMonitor | None,
    reason: StopReason,
) -> None:
    """Judge and export the last weights, and say what was found; an interrupted run leaves that to its continuation."""
    ended = reason not in (StopReason.INTERRUPTED, StopReason.NOT_FINITE)
    if monitor is not None:
        if ended and monitor.latest is not None and monitor.latest.step < trainer.step:
            monitor.evaluate(trainer.step, trainer.epoch)
        monitor.close(reason)
    if ended and ranks.is_main():
        with trainer.trainable.live_weights():
            export_weights(pipeline, config.output_dir / "last", {"step": trainer.step})
