"""The scheduler that renders the grid: a diffusers scheduler by name, set up as the model was trained."""

import inspect
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from finetune_monitor.record.grid import DEFAULT_SAMPLER

REMEDY = "name another sampler"


def default_sampler(trained_with: Any) -> str:
    """DPM-Solver++, or the model's own scheduler where it was trained by flow matching."""
    return type(trained_with).__name__ if does_flow_matching(trained_with) else DEFAULT_SAMPLER


def own_scheduler(trained_with: Any, sampler: str, karras: bool = False) -> Any:
    """The named diffusers scheduler with the noise levels and the prediction type of the model's own.

    Args:
        trained_with: the model's scheduler; only read.
        karras: noise levels spaced as in Karras et al. 2022.

    Raises:
        ValueError: no such scheduler, one for flow matching where the model was not trained so, or one that knows no
            flow matching or no Karras spacing where it is wanted.
    """
    scheduler = scheduler_class(sampler, karras)
    known = inspect.signature(scheduler).parameters
    settings: dict[str, Any] = {}
    if "clip_sample" in known:
        settings["clip_sample"] = False  # clipping is for pixels, latents reach further
    if is_flow_scheduler(scheduler) and not does_flow_matching(trained_with):
        raise ValueError(f"grid.sampler: found {sampler}, but this model was not trained by flow matching; {REMEDY}")
    if does_flow_matching(trained_with) and not is_flow_scheduler(scheduler):
        _check_knows(sampler, known, "use_flow_sigmas", "this model was trained by flow matching")
        shift = trained_with.config.get("shift", 1.0)
        settings |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    if karras:
        settings["use_karras_sigmas"] = True
    config = {key: value for key, value in trained_with.config.items() if key in known or key.startswith("_")}
    return scheduler.from_config(config, **settings)


def scheduler_class(sampler: str, karras: bool = False) -> Any:
    """The diffusers scheduler of that name.

    Raises:
        ValueError: there is none, or none with Karras spacing where it is wanted.
    """
    scheduler = getattr(diffusers, sampler, None)
    if not (isinstance(scheduler, type) and issubclass(scheduler, SchedulerMixin)):
        raise ValueError(f"grid.sampler: found {sampler!r}, expected a scheduler of diffusers such as DDIMScheduler")
    if karras:
        _check_knows(sampler, inspect.signature(scheduler).parameters, "use_karras_sigmas", "grid.karras is set")
    return scheduler


def does_flow_matching(scheduler: Any) -> bool:
    """Whether a model's scheduler says that the model was trained by flow matching (SD3, Flux)."""
    return is_flow_scheduler(type(scheduler)) or bool(scheduler.config.get("use_flow_sigmas"))


def is_flow_scheduler(scheduler: type) -> bool:
    return scheduler.__name__.startswith("FlowMatch")


def _check_knows(sampler: str, known: Any, setting: str, why: str) -> None:
    if setting not in known:
        raise ValueError(f"grid.sampler: found {sampler}, which has no {setting}, but {why}; {REMEDY}")
