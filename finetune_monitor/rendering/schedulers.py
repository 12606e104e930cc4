"""The scheduler that renders the grid: a diffusers scheduler by name, configured for how the model was trained."""

import inspect
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from finetune_monitor.record.grid import DEFAULT_SAMPLER

REMEDY = "choose another sampler"


def default_sampler(trained_with: Any) -> str:
    """DPM-Solver++, or the model's own scheduler if it was trained with flow matching."""
    return type(trained_with).__name__ if does_flow_matching(trained_with) else DEFAULT_SAMPLER


def own_scheduler(trained_with: Any, sampler: str, karras: bool = False) -> Any:
    """The named diffusers scheduler with the noise levels and prediction type of the model's own scheduler.

    Args:
        trained_with: the model's scheduler; only read.
        karras: space the noise levels as in Karras et al. 2022.

    Raises:
        ValueError: there is no such scheduler; it is for flow matching but the model was not trained that way; or it
            lacks flow matching or Karras spacing that is required.
    """
    scheduler = scheduler_class(sampler, karras)
    known = inspect.signature(scheduler).parameters
    settings: dict[str, Any] = {}
    if "clip_sample" in known:
        settings["clip_sample"] = False  # clipping is for pixels; latents have a larger range
    if is_flow_scheduler(scheduler) and not does_flow_matching(trained_with):
        raise ValueError(f"grid.sampler: found {sampler}, but this model was not trained with flow matching; {REMEDY}")
    if does_flow_matching(trained_with) and not is_flow_scheduler(scheduler):
        _check_knows(sampler, known, "use_flow_sigmas", "this model was trained with flow matching")
        known_shift = trained_with.config.get("flow_shift", 1.0)
        shift = trained_with.config.get("shift", known_shift)
        settings |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    if karras:
        settings["use_karras_sigmas"] = True
    config = {key: value for key, value in trained_with.config.items() if key in known or key.startswith("_")}
    return scheduler.from_config(config, **settings)


def scheduler_class(sampler: str, karras: bool = False) -> Any:
    """The diffusers scheduler with this name.

    Raises:
        ValueError: there is none, or it lacks Karras spacing that is required.
    """
    scheduler = getattr(diffusers, sampler, None)
    if not (isinstance(scheduler, type) and issubclass(scheduler, SchedulerMixin)):
        raise ValueError(f"grid.sampler: found {sampler!r}, expected a scheduler of diffusers such as DDIMScheduler")
    if karras:
        _check_knows(sampler, inspect.signature(scheduler).parameters, "use_karras_sigmas", "grid.karras is set")
    return scheduler


def settings_of_scheduler(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class and settings, those by default too, which differ between classes and versions."""
    settings = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": type(scheduler).__name__, **settings}


def does_flow_matching(scheduler: Any) -> bool:
    """Whether a model's scheduler shows that the model was trained with flow matching (SD3, Flux)."""
    return is_flow_scheduler(type(scheduler)) or bool(scheduler.config.get("use_flow_sigmas"))


def is_flow_scheduler(scheduler: type) -> bool:
    return scheduler.__name__.startswith("FlowMatch")


def _check_knows(sampler: str, known: Any, setting: str, why: str) -> None:
    if setting not in known:
        raise ValueError(f"grid.sampler: found {sampler}, which has no {setting}, but {why}; {REMEDY}")
