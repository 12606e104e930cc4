"""Which recorded images can be rendered again: the prompts, the base model, and the step's weights must be known."""

from collections.abc import Mapping

from finetune_monitor.base.redaction import REDACTED
from finetune_monitor.record.grid import ELSEWHERE
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.kept_weights import KeptWeights
from finetune_monitor.record.run_directory import CONFIG, RUN


def grid_problem(history: RunHistory) -> str | None:
    """Why no image of the grid can be rendered again; None if the grid is as it was recorded."""
    grid = history.grid
    if any(REDACTED in text for text in (*grid.prompts, *grid.probe_prompts, grid.negative_prompt)):
        return f"{history.output_dir}: secrets were removed from its prompts, so no image can be rendered again"
    if grid.fingerprint() != history.recorded_fingerprint:
        where = history.output_dir / RUN
        return f"{where}: grid: damaged (it does not match its fingerprint); restore the file from a backup"
    if grid.sampler == ELSEWHERE:
        return f"{history.output_dir}: its images come from another tool; only that tool can render them again"
    return None


def reproducible_steps(history: RunHistory, kept: Mapping[int, KeptWeights]) -> tuple[int, ...]:
    """The evaluated steps whose images can be rendered again."""
    if grid_problem(history) is not None:
        return ()
    is_trained_here = (history.output_dir / CONFIG).is_file() and "model" in history.hparams
    knows_class, knows_base = "class" in history.pipeline, "name_or_path" in history.pipeline

    def is_known(step: int) -> bool:
        if step and step not in kept:
            return False
        is_complete = step > 0 and not kept[step].is_lora
        return is_trained_here or (knows_class and (knows_base or is_complete))

    return tuple(found.step for found in history.evaluations if is_known(found.step))
