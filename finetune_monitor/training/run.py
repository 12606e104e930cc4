"""Run a training from its config to the exported weights."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL.Image import Image

from finetune_monitor.base import distributed
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.interrupts import Interrupt, watched_signals
from finetune_monitor.base.redaction import redacted, redacted_yaml, without_secrets
from finetune_monitor.base.text import counted
from finetune_monitor.metrics import Descriptions
from finetune_monitor.models.export import Label, export_weights
from finetune_monitor.models.prompts import cut_prompts
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.kept_weights import LAST
from finetune_monitor.record.run_directory import CONFIG, RUN, read_json
from finetune_monitor.rendering.pipelines import image_size
from finetune_monitor.sinks import accelerate as trackers
from finetune_monitor.training import checkpoints
from finetune_monitor.training.class_images import class_images, with_prompts
from finetune_monitor.training.compiling import compile_in_place
from finetune_monitor.training.config import Config, as_begun, recorded_config
from finetune_monitor.training.data import Photos, Views
from finetune_monitor.training.early_warnings import about_class_images, about_floor, about_resolution
from finetune_monitor.training.latents import Latents, open_latents
from finetune_monitor.training.launcher import make_accelerator
from finetune_monitor.training.loop import CHECKPOINTS, Conditioning, Trainer, identity, make_optimizer
from finetune_monitor.training.own import classes_of, options_in
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.preflight import RunInputs, check_space, find_inputs
from finetune_monitor.training.registry import SINKS
from finetune_monitor.training.start_lines import before_loading, before_training
from finetune_monitor.training.trainable import (
    PRECISIONS,
    Trainable,
    average,
    load_pipeline,
    lower_precision,
    make_trainable,
    trained_family,
)

logger = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Train according to the config.

    Returns:
        The exit status: 0, 1 if the loss was no longer finite, or 128 + the signal that ended the run.

    Raises:
        UserError: a problem that the user can fix, before training starts.
    """
    with ExitStack() as held, _interruptible() as interrupt:
        accelerator, problems = make_accelerator(config.train)
        config = _as_begun(config)
        inputs = find_inputs(config, accelerator.device, held, problems)
        config = config.compiled(inputs.compiling.is_on)
        step = inputs.checkpoint.step if inputs.checkpoint is not None else 0
        if _finished(config, step) is None:
            _log_changes(config)
        _say(before_loading(config, len(inputs.photos), accelerator.device, step))
        pipeline = load_pipeline(inputs.model, config.base_model)
        _warn(lambda: about_resolution(config, image_size(pipeline)))
        others = _class_images(config, accelerator.device, pipeline, interrupt)
        if interrupt.asked():
            return interrupt.exit_status
        _warn(lambda: about_class_images(inputs.survey, inputs.faces, others) if inputs.survey else ())
        trainer = make_trainer(config, accelerator, pipeline, inputs, others)
        held.callback(trainer.close)
        encoders = len(trained_family(pipeline).text_encoders)
        _say(before_training(config, *_sizes(pipeline, trainer.trainable), inputs.compiling, encoders))
        if interrupt.asked():
            return interrupt.exit_status
        monitor = make_monitor(config, accelerator, pipeline, trainer, inputs, interrupt)
        if monitor is not None:
            monitor.start()
            first = monitor.latest
            _warn(lambda: about_floor(first, Descriptions.of(inputs.metrics).ceilings) if first else ())
        reason = trainer.run(monitor, interrupt)
        _finish(config, trainer, pipeline, monitor, reason)
        trackers.end(accelerator)
    return 1 if reason == StopReason.NOT_FINITE else interrupt.exit_status


def make_trainer(
    config: Config,
    accelerator: Accelerator,
    pipeline: DiffusionPipeline,
    inputs: RunInputs,
    others: list[Path],
) -> Trainer:
    """The trainer, after encoding photos and restoring the checkpoint.

    Args:
        others: the class images; none without prior preservation.
    """
    data, train, checkpoint = config.data, config.train, inputs.checkpoint
    photos = {"photos": inputs.photos}
    if others:
        photos["class images"] = with_prompts(others, data)
    prompts = [[photo.prompt for photo in each] for each in photos.values()]
    for warning in cut_prompts(pipeline, chain.from_iterable(prompts)) if distributed.is_main() else ():
        logger.warning(warning)
    pipeline.vae.to(accelerator.device)
    latents = _open_latents(config, pipeline, photos, inputs.decoded)
    inputs.decoded.clear()
    trainable = make_trainable(pipeline, train, config.seed)
    lower_precision(pipeline, train)
    pipeline.to(accelerator.device)  # not before: in half precision, it takes half the device's memory
    check_space(config, *_sizes(pipeline, trainable))
    trainable.ema = average(trainable, train.ema_decay)
    optimizer = make_optimizer(trainable, train)
    if checkpoint is not None:
        checkpoints.restore(checkpoint, trainable, optimizer)
        if accelerator.scaler is not None and checkpoint.scaler:
            accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
    if train.compile is True:
        compile_in_place(pipeline.unet)
    prepared = {name: accelerator.prepare(model.train()) for name, model in trainable.models.items()}
    encoders = [prepared.get(name, getattr(pipeline, name)) for name in trained_family(pipeline).text_encoders]
    return Trainer(
        config,
        accelerator,
        trainable,
        prepared,
        accelerator.prepare(optimizer),
        DDPMScheduler.from_config(pipeline.scheduler.config),
        Conditioning(pipeline, encoders, prompts, train.text_encoder, train.batch_size),
        latents,
        identity(config, inputs.photos),
        step=checkpoint.step if checkpoint is not None else 0,
    )


def _class_images(
    config: Config, device: torch.device, pipeline: DiffusionPipeline, interrupt: Interrupt
) -> list[Path]:
    """The class images, generated now if they are missing; none without prior preservation, or after a signal."""
    if not config.prior_preservation:
        return []
    precision = PRECISIONS[config.train.mixed_precision]
    return class_images(
        pipeline, config.data, config.prompt_grid, precision, lambda: interrupt.number is not None, device
    )


def _open_latents(
    config: Config,
    pipeline: DiffusionPipeline,
    photos: Mapping[str, Sequence[TrainingPhoto]],
    decoded: dict[Path, Image],
) -> list[Latents]:
    """Latents of the subject and, with prior preservation, of the class, each in its own order."""
    data, train = config.data, config.train
    views = Views(data.resolution, data.random_crop, data.random_flip)
    sequences = {label: _sequence(found, views, config.seed + i) for i, (label, found) in enumerate(photos.items())}
    return [
        open_latents(pipeline.vae, sequence, train.batch_size, train.cache_latents, data.workers, label, decoded)
        for label, sequence in sequences.items()
    ]


def _sequence(photos: Sequence[TrainingPhoto], views: Views, seed: int) -> Photos:
    squares = {photo.path: photo.square for photo in photos if photo.square is not None}
    return Photos([photo.path for photo in photos], views, seed, squares, [photo.repeats for photo in photos])


def make_monitor(
    config: Config,
    accelerator: Accelerator,
    pipeline: DiffusionPipeline,
    trainer: Trainer,
    inputs: RunInputs,
    interrupt: Interrupt,
) -> FinetuneMonitor | None:
    """The monitor of the config, sharing Accelerate's trackers."""
    options = config.monitor.sinks.chosen
    chosen = {kind: options_in(options[name]) for name, kind in classes_of(SINKS, config.monitor.sinks).items()}
    sinks = trackers.start_sinks(accelerator, config.output_dir, chosen, inputs.resume_step)
    finished = _finished(config, trainer.step)
    if distributed.is_main():
        checkpoints.drop_after(config.output_dir / CHECKPOINTS, trainer.step)
    if not config.monitor.enabled:
        if distributed.is_main() and finished is None:
            write_atomic(config.output_dir / CONFIG, redacted_yaml(config.to_yaml()).encode())
        return None
    return FinetuneMonitor(
        pipeline,
        config.prompt_grid,
        inputs.metrics,
        config.output_dir,
        sinks,
        config.monitor.rules,
        config.monitor.every,
        max_overhead=config.monitor.max_overhead,
        keep=config.monitor.keep,
        hooks=config.monitor.made_hooks,
        autocast=PRECISIONS[config.train.mixed_precision],
        live_weights=trainer.trainable.live_weights,
        hparams=(finished or config).flat(),
        config_yaml=None if finished else config.to_yaml(),
        resume_step=inputs.resume_step,
        on_failure=config.monitor.on_failure,
        evaluation_timeout=config.monitor.evaluation_timeout,
        interrupted=lambda: interrupt.number is not None,
    )


def _say(lines: Iterable[str]) -> None:
    if distributed.is_main():
        print(*lines, sep="\n", flush=True)


def _warn(find: Callable[[], Iterable[str]]) -> None:
    """Log warnings on the main process; what fails while looking for them is no reason not to train."""
    if not distributed.is_main():
        return
    try:
        for warning in find():
            logger.warning(warning)
    except Exception as error:
        logger.warning("a check of the data failed: %r", error)


def _as_begun(config: Config) -> Config:
    """The config, with the crops and prompts of a run that an earlier version began."""
    found, changed = as_begun(config, config.output_dir / CONFIG)
    if changed and distributed.is_main():
        logger.warning(
            "%s: begun by an earlier version, so it continues with %s; choose a new output_dir for anything else",
            config.output_dir,
            ", ".join(changed),
        )
    return found


def _finished(config: Config, step: int) -> Config | None:
    """The recorded config of a run that has trained as many steps as it and the new config say; None for any other."""
    path = config.output_dir / CONFIG
    if step < config.train.max_steps or not path.exists():
        return None
    recorded, _ = recorded_config(path)
    return recorded if step >= recorded.train.max_steps else None


def _log_changes(config: Config) -> None:
    """Log which settings a resumed run takes from the new config; keys known to only one version are not changes."""
    path = config.output_dir / CONFIG
    if not distributed.is_main() or not path.exists():
        return
    recorded, unknown = recorded_config(path)
    if unknown:
        logger.warning("%s: ignoring %s, which this version does not know", path, ", ".join(unknown))
    before, now = redacted(recorded.flat()), redacted(config.flat())
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            logger.warning("%s: was %s, continuing with %s", key, before.get(key), now.get(key))
    _log_processes(config)


def _log_processes(config: Config) -> None:
    """Log that a resumed run has another number of processes, and so learns from more or fewer photos in a step."""
    path = config.output_dir / RUN
    if not config.monitor.enabled or not path.exists():
        return
    before, now = RunHistory(config.output_dir, read_json(path), ()).processes, distributed.world_size()
    if before != now:
        photos = config.train.batch_size * config.train.gradient_accumulation
        text = "processes: was %d, continuing with %d, so a step learns from %s instead of %d"
        logger.warning(text, before, now, counted(photos * now, "photo"), photos * before)


def _sizes(pipeline: DiffusionPipeline, trainable: Trainable) -> tuple[int, int]:
    """The numbers of parameters with and without gradients."""
    trained = sum(parameter.numel() for parameter in trainable.parameters.values())
    parts = trained_family(pipeline).networks(pipeline).values()
    return trained, sum(parameter.numel() for part in parts for parameter in part.parameters()) - trained


def _finish(
    config: Config,
    trainer: Trainer,
    pipeline: DiffusionPipeline,
    monitor: FinetuneMonitor | None,
    reason: StopReason | str,
) -> None:
    """Evaluate and export the last weights, and print the results; an interrupted run postpones that."""
    ended = reason not in (StopReason.INTERRUPTED, StopReason.NOT_FINITE)
    if reason == StopReason.NOT_FINITE:
        logger.error("step %d: loss or gradient is not finite; lower the learning rate and resume", trainer.step)
    try:
        if ended and monitor is not None:
            monitor.evaluate(trainer.step, trainer.epoch)
        if ended and distributed.is_main():
            with trainer.trainable.live_weights():
                label = Label(config.output_dir.resolve().name, without_secrets(config.data.instance_prompt))
                scheduler = None if monitor is None else monitor.scheduler
                export_weights(pipeline, config.output_dir / LAST, {"step": trainer.step}, label, scheduler)
    finally:
        if monitor is not None:
            monitor.close(reason)


def _interruptible() -> AbstractContextManager[Interrupt]:
    return watched_signals("stopping after this step with a checkpoint", gather=distributed.gather, forwarded=True)
