"""FinetuneMonitor: every N steps, render the grid, score it, record it, show it, and decide whether to stop."""

import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from tqdm.auto import tqdm

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.versions import device_name, versions
from finetune_monitor.metrics import Descriptions, Metric
from finetune_monitor.models.export import identify
from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.models.prompts import cut_prompts
from finetune_monitor.monitor.arguments import check_live_weights, finite_or_none, number_of, settings_of, step_of
from finetune_monitor.monitor.audience import Audience, Hook
from finetune_monitor.monitor.budget import EVERY, Budget
from finetune_monitor.monitor.evaluator import Evaluator, FoundImages, check_images_fit
from finetune_monitor.monitor.full_quality import FullQuality
from finetune_monitor.monitor.judge import Judge
from finetune_monitor.monitor.keeping import AUTO, check_measured, checked_keep
from finetune_monitor.monitor.parts import hooks_of, metrics_of, rules_of, sinks_of
from finetune_monitor.monitor.progress_lines import evaluation_lines, forecast
from finetune_monitor.monitor.run_output import RunOutput
from finetune_monitor.monitor.run_weights import RunWeights
from finetune_monitor.monitor.steering import NOTHING, Asked, Steering
from finetune_monitor.monitor.stopping import StoppingRule, check_rules
from finetune_monitor.monitor.user_code import UserCode
from finetune_monitor.record.evaluation import (
    Decision,
    Evaluation,
    RunSummary,
    StopReason,
    scheduled,
    summarize,
    summarize_samples,
)
from finetune_monitor.record.grid import Cell, PromptGrid, trigger_prompt
from finetune_monitor.record.live import EVALUATE, PAUSE, STOP
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.rendering.isolation import isolated, process_kept
from finetune_monitor.rendering.pipelines import device_of
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.rendering.schedulers import settings_of_scheduler
from finetune_monitor.sinks import RunInfo, Sink

ON_FAILURE = ("raise", "warn")
"""What to do if nothing can be rendered at the start of a run."""


def never() -> bool:
    """The training loop is told to end only by exceptions, such as `KeyboardInterrupt`."""
    return False


class FinetuneMonitor:
    """Monitors a training loop with a diffusers pipeline.

    `start` evaluates step 0, the untouched model, and `on_step_end` evaluates every `every` steps. As a context
    manager, the monitor starts and closes itself, even after an error. Nothing that the training loop owns is changed:
    modules, modes, and random generators are restored. If rendering, a metric, a rule, a sink, or a hook fails, one
    warning says so, the record marks what is missing, and training continues. It is an error only if no image can be
    rendered at the start.

    With several processes (torch.distributed), create it on every process, and call every method there, too, without
    `if accelerator.is_main_process`: each renders its share, the first one writes, and all get the same decision.

    Args:
        pipeline: a text-to-image pipeline of diffusers (Stable Diffusion 1.x, 2.x, 3.x, SDXL, Flux) with the modules
            being trained; or images from another tool, which have no weights to keep.
        grid: prompts, each with its seeds.
        metrics: what to measure, including `Starred` metrics; the metric of the first stopping rule (or the first
            metric) determines the best step.
        output_dir: the run directory, also after the working directory has changed; it must not hold another run
            unless `resume_step` is given.
        sinks: where evaluations are shown in addition to the record.
        stopping: one or more rules; the first one that fires stops the run.
        every: steps between evaluations.
        max_overhead: the maximum share of the wall time that evaluations may take, such as 0.05; an evaluation that
            would exceed it is postponed to a later multiple of `every`. None: no limit.
        keep: the steps whose weights are kept in `weights/`: "all", "best" (with the newest, which may become
            it), "pareto" (those that no other step beats in two scores), or "last N"; what may become the best is
            always kept. "auto": "all" for a LoRA, "best" for a complete pipeline.
        hooks: called on the first process with every evaluation and the decision after it, once both are recorded and
            shown; return values are ignored, and a hook that fails is turned off with a warning. Or objects that are
            told of alarms, new best steps, and the end, too: `RunCommand` and `Webhook`, or any with a sink's methods.
        autocast: the precision to render in; pass that of the training loop if it uses autocast.
        live_weights: returns a context manager that swaps in the weights to evaluate (such as an EMA) and restores the
            others; called for each evaluation.
        hparams: flat training settings, shown by the trackers.
        config_yaml: the training config, kept as `config.yaml`.
        resume_step: resume a recorded run from this step; later evaluations are dropped from the record.
        on_failure: what to do if the first evaluation of a run cannot render any image: "raise" a `UserError`, or
            "warn" and train without images.
        evaluation_timeout: seconds that the metrics, rules, sinks, and hooks of one evaluation may take together, not
            counting rendering; what is not finished by then is missing, and training continues. None: no limit. It
            works only in the main thread, and cannot interrupt a library that never returns to Python.
        interrupted: whether the loop was told to end, as by its own signal handler; asked during a pause, which it
            ends. A loop without such a handler needs none.

    Attributes:
        record: the writer of the run directory; None on every process but the first.
        decision: the rules' decision on the evaluations so far.

    Raises:
        UserError: `output_dir` is in use by another process, holds another run, or was recorded with a different grid
            or different metrics; or the grid's images do not fit into memory.
        TypeError: an argument is of another type, such as a class instead of an object, or an object instead of a list.
        ValueError: there is no metric, several with the same name, or one whose name, direction, or bounds cannot be
            recorded; `every` is below 1, `max_overhead` not between 0 and 1, `evaluation_timeout` not above 0, or
            `resume_step` below 0; `keep` or `on_failure` is not one of the choices, or `keep` needs a second score; a
            rule does not work with the grid or the metrics, or watches what no metric describes; or `Renderer` rejects
            the pipeline, sampler, size, or negative prompt.
    """

    @process_kept()
    def __init__(
        self,
        pipeline: Pipeline | FoundImages,
        grid: PromptGrid,
        metrics: Sequence[Metric],
        output_dir: str | Path,
        sinks: Sequence[Sink] = (),
        stopping: StoppingRule | Sequence[StoppingRule] = (),
        every: int = EVERY,
        *,
        max_overhead: float | None = None,
        keep: str = AUTO,
        hooks: Sequence[Hook | Sink] = (),
        autocast: torch.dtype | None = None,
        live_weights: Callable[[], AbstractContextManager[object]] = nullcontext,
        hparams: Mapping[str, Any] | None = None,
        config_yaml: str | None = None,
        resume_step: int | None = None,
        on_failure: str = "raise",
        evaluation_timeout: float | None = None,
        interrupted: Callable[[], bool] = never,
    ):
        _check_options(grid, on_failure, evaluation_timeout, autocast)
        check_live_weights(live_weights)
        settings = settings_of(hparams)
        resume_step = None if resume_step is None else step_of(resume_step, "resume_step")
        self._on_failure, self._live_weights = on_failure, live_weights
        self.output_dir, self.metrics = user_path(output_dir).absolute(), metrics_of(metrics)
        self._budget, self._described = Budget(every, max_overhead), Descriptions.of(self.metrics)
        self._columns = self._described.columns
        self.rules = rules_of(stopping)
        self.best_metric = self.rules[0].metric if self.rules else self.metrics[0].name
        check_measured(checked_keep(keep), self._columns, self.best_metric)
        self._renderer = pipeline if isinstance(pipeline, FoundImages) else Renderer(pipeline, grid, autocast)
        self._pipeline = pipeline.pipeline if isinstance(pipeline, FoundImages) else pipeline
        self.grid = self._renderer.grid
        check_rules(self.rules, self.grid, self._columns, self._described.ceilings)
        check_images_fit(len(self.grid.cells), self._renderer.size)
        self._code = UserCode(evaluation_timeout)
        self._evaluator = Evaluator(self._renderer, self.metrics, self._columns, self._code)
        self._warn = self._evaluator.warn
        self._full_quality = FullQuality(self.output_dir, self._evaluator, interrupted)
        self._judge = Judge(self.rules, self._described, self.best_metric, self._code, self._warn)
        self._steering = Steering(self.output_dir, interrupted, self._warn)
        if isinstance(self._renderer, Renderer):
            self._renderer.on_rendered = self._on_rendered
        self._output = self._output_of(keep, hooks_of(hooks), settings)
        texts = [*self.grid.prompts, *self.grid.probe_prompts, self.grid.negative_prompt]
        for warning in cut_prompts(self._pipeline, texts):
            self._warn(warning, warning)
        self.evaluations: tuple[Evaluation, ...] = ()
        self._warm = False
        self._is_new, self._resumed_at = not resume_step, resume_step
        self._step = resume_step or 0
        self._summary: RunSummary | None = None
        try:
            self._begin(sinks_of(sinks), settings, config_yaml, resume_step)
        except BaseException:
            self._let_go()
            raise

    def _output_of(self, keep: str, hooks: Sequence[Hook | Sink], hparams: Mapping[str, Any]) -> RunOutput:
        """The run's record, weights, sinks, and hooks, none of them started."""
        weights = RunWeights(
            self._pipeline,
            self.scheduler,
            self.output_dir,
            self.grid,
            self._columns,
            self.rules,
            self.best_metric,
            keep,
            trigger_prompt(self.grid, hparams),
            self._warn,
        )
        return RunOutput(self.output_dir, self.grid, weights, Audience(hooks, self._code, self._warn), self._warn)

    def __enter__(self) -> "FinetuneMonitor":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        failed = StopReason.INTERRUPTED if isinstance(error, KeyboardInterrupt) else StopReason.FAILED
        self.close(failed if error is not None else None)

    def start(self) -> "FinetuneMonitor":
        """Evaluate step 0, the untouched model, of a new run; do nothing if the run has evaluations.

        Raises:
            UserError: no image can be rendered, unless `on_failure` is "warn". The directory can then be used again.
        """
        if self._is_new and not self.evaluations:
            try:
                self.evaluate(0)
            except BaseException:
                self._let_go()
                raise
        return self

    def on_step_end(
        self,
        step: int,
        epoch: float | None = None,
        loss: float | None = None,
        learning_rate: float | None = None,
    ) -> bool:
        """Evaluate if a multiple of `every` was reached or passed, and the budget allows it; do what people ask.

        The first call of a monitor that was not started evaluates, too. While a person holds the run (`pause`), this
        does not return.

        Args:
            step: optimizer steps so far; it may increase by more than 1 per call.
            epoch: recorded with the evaluation.
            loss: the loss of this step, for rules that watch it and for the page's curves; with several processes,
                pass it on all of them.
            learning_rate: for the page's curves, next to the loss.

        Returns:
            True if training should end: a stopping rule has decided to stop, a person has asked for it, or the loop
            was told to end during a pause (`interrupted`).
        """
        step = self._step = step_of(step)
        if loss is not None:
            loss = number_of(loss, "loss")
            self._judge.watch_loss(loss, self.evaluations)
            self.log_training(step, loss, learning_rate)
        if self.latest is not None and step == self.latest.step == self._resumed_at:
            self._make_up_weights(self.latest)
        elif self._is_due(step) and self._keeps_to_budget(step):
            self.evaluate(step, epoch)
        self._steering.note(step)
        return self._obey(step, epoch)

    def _obey(self, step: int, epoch: float | None) -> bool:
        """Do what people ask, on all processes alike; returns whether training should end."""
        asked, is_told = self._steering.look()
        self._answer(asked, step, epoch)
        if PAUSE in asked and not self.decision.stop:
            is_told = self._hold(step, epoch)
        return self.decision.stop or is_told

    def _answer(self, asked: Asked, step: int, epoch: float | None) -> None:
        """Evaluate or stop on request."""
        if EVALUATE in asked:
            self._steering.carry_out(EVALUATE, step, "evaluating on request")
            if not self._is_past(step):
                self._evaluate(step, epoch, on_request=True)
        if STOP in asked:
            self._steering.carry_out(STOP, step, "stopping on request")
            self._judge.stop(self.evaluations)

    def _hold(self, step: int, epoch: float | None) -> bool:
        """Wait as long as somebody holds the run; returns whether the loop was told to end meanwhile."""
        is_held, is_told, waited = True, False, self._budget.waited
        with self._steering.paused(step):
            while is_held and not is_told and not self.decision.stop:
                asked, is_told = self._steering.wait()
                self._answer(NOTHING if is_told else asked, step, epoch)
                is_held = PAUSE in asked
        self._budget.leave_out(self._budget.waited - waited)
        return is_told

    def log_training(self, step: int, loss: float, learning_rate: float | None = None) -> None:
        """Record the loss of a step, or its mean since the last call; `on_step_end` does so with the loss it is given.

        What cannot be recorded is warned about once. Nothing is recorded on any process but the first.
        """
        rate = None if learning_rate is None else number_of(learning_rate, "learning_rate")
        self._output.log_training(step_of(step), number_of(loss, "loss"), rate)

    def forecast(self, seconds_a_step: float) -> str:
        """A sentence about the cost of monitoring, at this training speed, and the smallest change it can detect.

        After the first evaluation of a process, the cost is an upper bound, because that evaluation also loads,
        and compiles for all others.
        """
        return forecast(self._budget, self.evaluations, self.best_metric, seconds_a_step)

    def evaluate(self, step: int, epoch: float | None = None) -> Evaluation:
        """Render, score, record, and show the grid now, regardless of the interval; a step is evaluated only once.

        After a person has asked to stop, it counts as an evaluation on request: the run may be resumed.

        Raises:
            ValueError: a later step has already been evaluated; the record cannot go back.
            UserError: the monitor was closed, or another one has taken over its directory.
        """
        return self._evaluate(step_of(step), epoch, on_request=self.decision.reason == StopReason.REQUESTED)

    def _evaluate(self, step: int, epoch: float | None, on_request: bool = False) -> Evaluation:
        """`evaluate`; on request, neither the schedule nor a stopping rule takes notice."""
        epoch = None if epoch is None else finite_or_none(number_of(epoch, "epoch"))
        if self.latest is not None and self.latest.step == step:
            return self.latest
        if self.latest is not None and self.latest.step > step:
            raise ValueError(
                f"step: found {step} after an evaluation at step {self.latest.step}, expected a later step; count "
                "steps across the entire training run"
            )
        self._check_open()
        self._code.begin()
        self._steering.note_evaluation(step, len(self.grid.cells))
        waited, start = self._budget.waited, time.monotonic()
        with self._live_weights(), self._isolated():  # modules are restored before weights are
            evaluation = self._measured(step, epoch, on_request, waited)
        spent = time.monotonic() - start
        if on_request:
            self._budget.leave_out(spent)
        else:
            self._budget.train_from(step, step, spent, warm=self._warm)
        self._warm = True
        self._steering.note_evaluated(step)
        if distributed.is_main():
            known = self._columns, self._described.ceilings, self.best_metric
            for line in evaluation_lines(self.evaluations, *known, spent, waited):
                tqdm.write(line)  # past any progress bar
        return evaluation

    def _isolated(self) -> AbstractContextManager[None]:
        """Render with the modules that the pipeline has now; all are as before on exit."""
        if isinstance(self._renderer, Renderer):
            self._renderer.follow(self._pipeline)
        return isolated(self._renderer.pipeline)

    def _measured(self, step: int, epoch: float | None, on_request: bool, waited: float) -> Evaluation:
        """Render, score, judge, record, and show the grid."""
        found = self._evaluator.measure(must_render=not self.evaluations and self._on_failure == "raise")
        scores = summarize(found.images, self._columns) | summarize_samples(found.samples, self._columns)
        seconds, samples = found.seconds, found.samples
        evaluation = Evaluation(
            step, epoch, time.time(), scores, found.images, seconds, samples=samples, on_request=on_request
        )
        derived = self._evaluator.derive((*self.evaluations, evaluation))
        evaluation = replace(evaluation, failed=self._evaluator.failed())
        earlier, evaluation = self.evaluations, self._judge.judged(evaluation, self.evaluations, derived)
        if distributed.is_main():
            evaluation = self._output.write(evaluation, found.rendered, waited if earlier else None)
        self.evaluations = (*earlier, evaluation)  # what is recorded counts, also if Ctrl-C cuts the rest short
        if distributed.is_main():
            self._output.publish(evaluation, earlier, found.rendered)
        return evaluation

    def _on_rendered(self, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
        """Show and begin to encode the images of a batch, before the next one is rendered."""
        self._output.encode(self._steering.step, cells, images)
        self._steering.preview(cells, images)

    @process_kept()
    def close(self, reason: StopReason | str | None = None) -> RunSummary:
        """Close the sinks and the record, and print the table; a second call does nothing.

        Args:
            reason: why training ended, if not by a rule.
        """
        if self._summary is not None:
            return self._summary
        self._code.begin()
        decision = self.decision
        is_decided = decision.stop and reason != StopReason.NOT_FINITE
        ended, detail = (decision.reason, decision.detail) if is_decided else (reason, "")
        best = decision.best_step, decision.best_score
        step = max(self._step, self.latest.step if self.latest else 0)
        summary = RunSummary(self.evaluations, self.best_metric, best[0], ended, detail, best[1], step=step)
        try:
            self._render_full_quality(ended)
        finally:  # the end is recorded even if Ctrl-C cuts the rendering short
            summary = self._end(summary)
        return summary

    def _end(self, summary: RunSummary) -> RunSummary:
        """Record and show how the run ended; returns the summary with the verdict."""
        is_ours = self._output.is_open
        self._code.begin()
        self._summary = summary
        self._summary = self._output.end(summary)
        if is_ours:
            self._steering.close()
            self._output.close()
            self._output.print_summary()
        return self._summary

    def _render_full_quality(self, ended: StopReason | str | None) -> None:
        """Record the best and the last step at full quality, if the evaluations were fast."""
        say = tqdm.write if distributed.is_main() else str
        try:
            if isinstance(self._renderer, Renderer):
                self._renderer.follow(self._pipeline)
            for found in self._full_quality.of(self.evaluations, self.decision.best_step, ended, say):
                self._output.add_full_quality(*found)
        except Exception as error:
            self._warn("full quality", f"{self.output_dir}: cannot render at full quality: {error!r}")

    def _let_go(self) -> None:
        """Close the sinks and the record of a run that could not start, so that it can be started again."""
        self._summary = RunSummary((), self.best_metric, None, StopReason.FAILED)
        self._output.audience.close(self._summary)
        if self._output.is_open:
            self._steering.close()
            self._output.close()

    @property
    def record(self) -> RunRecord | None:
        """The writer of the run directory; None on every process but the first."""
        return self._output.record

    @property
    def decision(self) -> Decision:
        """The rules' decision on the evaluations so far."""
        return self._judge.decision

    @property
    def sinks(self) -> Sequence[Sink]:
        """The sinks that have not failed."""
        return self._output.audience.sinks

    @property
    def scheduler(self) -> Any:
        """The diffusers scheduler that renders the grid."""
        return self._renderer.pipeline.scheduler

    @property
    def latest(self) -> Evaluation | None:
        """The newest evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def every(self) -> int:
        """Steps between evaluations, if the budget allows."""
        return self._budget.every

    def _is_due(self, step: int) -> bool:
        """Whether to evaluate this step."""
        if self._is_new and not self.evaluations:
            if step:
                text = f"the first evaluation is at step {step}, so there is no untouched model to compare with"
                self._warn("start", f"{text}: call start() before the training loop, or use `with`")
            return True
        return not self._is_past(step) and self._budget.crosses(step)

    def _is_past(self, step: int) -> bool:
        """Whether a later step was evaluated; a step count that restarts with each epoch is warned about once."""
        if self.latest is None or step >= self.latest.step:
            return False
        text = f"step {step} comes after an evaluation at step {self.latest.step} and is skipped"
        self._warn("order", f"{text}: count steps across the entire training run")
        return True

    def _keeps_to_budget(self, step: int) -> bool:
        """Whether the budget allows an evaluation, decided by the first process for all."""
        if self._budget.max_overhead is None:
            return True
        affordable = distributed.gather(self._budget.is_affordable(step))[0]
        if not affordable and distributed.is_main():
            later = self._budget.next_step(step)
            limit = f"{100 * self._budget.max_overhead:.3g}% of the time"
            self._warn(
                f"postponed since {self.latest and self.latest.step}",
                f"step {step}: evaluation postponed to about step {later}; now it would exceed {limit}",
            )
        return affordable

    def _begin(
        self, sinks: Sequence[Sink], hparams: Mapping[str, Any], config_yaml: str | None, resume_step: int | None
    ) -> None:
        """Open the record and the sinks on the main process, and return the recorded history on every process."""
        failed: BaseException | None = None
        if distributed.is_main():
            try:
                self._open_record(hparams, config_yaml, resume_step)
            except Exception as error:
                failed = error
        failed, self.evaluations = distributed.gather((failed, self.evaluations))[0]
        if failed is not None:
            raise failed
        self._judge_again()
        if distributed.is_main():
            self._output.start(sinks, self._run_info(hparams, resume_step))
        if self.latest is not None:
            last = (scheduled(self.evaluations) or self.evaluations)[-1]
            self._budget.train_from(resume_step or 0, last.step, sum(last.seconds.values()))

    def _judge_again(self) -> None:
        """Decide on the evaluations of a resumed run by its current rules, which may not be those that stopped it."""
        decision = self._judge.decide(self.evaluations)
        if self.latest is not None:
            self.evaluations = (*self.evaluations[:-1], replace(self.latest, decision=decision))
            self._output.judge_again(decision)

    def _open_record(self, hparams: Mapping[str, Any], config_yaml: str | None, resume_step: int | None) -> None:
        run = self._run_json(hparams)
        self.evaluations = self._output.open(run, config_yaml, resume_step, self._described.thumbnails)
        self._steering.open()

    def _run_info(self, hparams: Mapping[str, Any], resume_step: int | None) -> RunInfo:
        """What the sinks are told of the run."""
        said = (self._identity.get("notice"), *(each.notice for each in self._described.by_metric.values()))
        return RunInfo(
            self.output_dir,
            hparams,
            self._columns,
            self._described.ceilings,
            tuple(dict.fromkeys(str(notice) for notice in said if notice)),
            resume_step,
            self.best_metric,
            self.evaluations,
        )

    @cached_property
    def _identity(self) -> Mapping[str, Any]:
        """What identifies the model, read once, and only by the process that records it."""
        return identify(self._pipeline)

    def _run_json(self, hparams: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "versions": versions(),
            "device": device_name(device_of(self._renderer.pipeline)),
            "processes": distributed.world_size(),
            "pipeline": self._identity,
            "scheduler": settings_of_scheduler(self.scheduler),
            **self._described.to_json(),
            "baselines": {name: estimate.to_json() for name, estimate in self._described.ceilings.items()},
            "best_metric": self.best_metric,
            "every": self.every,
            "max_overhead": self._budget.max_overhead,
            "hparams": dict(hparams),
        }

    def _make_up_weights(self, evaluation: Evaluation) -> None:
        """Keep the weights of the step that the run resumes from if their export failed, as on a full disk."""
        self._resumed_at = None
        with self._live_weights():
            if distributed.is_main():
                self._output.make_up_weights(evaluation, self.evaluations)

    def _check_open(self) -> None:
        """Check that the record can be written; the first process checks for all."""
        if not distributed.gather(self.record is None or self.record.is_open)[0]:
            raise UserError(
                f"{self.output_dir}: this monitor was closed, or another one in this process has taken over; use the "
                "newest one"
            )


def _check_options(grid: object, on_failure: str, evaluation_timeout: float | None, autocast: object) -> None:
    """Check the options that no part of the monitor checks."""
    if not isinstance(grid, PromptGrid):
        raise TypeError(f"grid: found {reprlib.repr(grid)}, expected a PromptGrid, such as PromptGrid(['a photo'])")
    if autocast is not None and not isinstance(autocast, torch.dtype):
        raise TypeError(f"autocast: found {autocast!r}, expected a type such as torch.bfloat16, or None")
    if on_failure not in ON_FAILURE:
        raise ValueError(f"on_failure: found {on_failure!r}, expected one of {', '.join(ON_FAILURE)}")
    if evaluation_timeout is not None and not number_of(evaluation_timeout, "evaluation_timeout") > 0:
        raise ValueError(
            f"evaluation_timeout: found {evaluation_timeout}, expected a number of seconds above 0, or None"
        )
