"""Sinks and hooks: each gets copies, and one that fails is turned off for the rest of the run with one warning."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.files import private
from finetune_monitor.monitor.evaluator import WarnOnce
from finetune_monitor.monitor.user_code import UserCode, name_of
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary
from finetune_monitor.sinks import RunInfo, Sink

Hook = Callable[[Evaluation, Decision], object]


class Audience:
    """The sinks and hooks of a run.

    Attributes:
        sinks: those that have been started and have not failed.
    """

    def __init__(self, hooks: Sequence[Hook | Sink], code: UserCode, warn: WarnOnce) -> None:
        self.sinks: list[Sink] = []
        self._tellers = [hook for hook in hooks if isinstance(hook, Sink)]
        self._hooks: list[Hook] = [hook for hook in hooks if not isinstance(hook, Sink)]
        self._code, self._warn = code, warn

    def start(self, sinks: Sequence[Sink], run: RunInfo) -> None:
        """Start the sinks, and the hooks with a sink's methods, which come after all sinks."""
        self.sinks = [*sinks, *self._tellers]
        for sink in list(self.sinks):
            self._tell(sink, "start", _copy_of(run))

    def show(self, evaluation: Evaluation, rendered: Sequence[Image | None]) -> None:
        """Show an evaluation in the sinks, and then call the hooks."""
        for sink in list(self.sinks):
            self._tell(sink, "write", deepcopy(evaluation), [image and image.copy() for image in rendered])
        for hook in list(self._hooks):
            self._call(hook, deepcopy(evaluation))

    def close(self, summary: RunSummary) -> None:
        for sink in list(self.sinks):
            self._tell(sink, "close", deepcopy(summary))

    def _tell(self, sink: Sink, method: str, *arguments: Any) -> None:
        def failed(why: str) -> None:
            self.sinks = [other for other in self.sinks if other is not sink]
            kind = "hook" if sink in self._tellers else "sink"
            name = name_of(sink)
            self._warn(f"{kind} {name}", f"{kind} {name} failed and is turned off for the rest of the run: {why}")

        with private():
            self._code.call(lambda: getattr(sink, method)(*arguments), failed)

    def _call(self, hook: Hook, evaluation: Evaluation) -> None:
        def failed(why: str) -> None:
            self._hooks = [other for other in self._hooks if other is not hook]
            text = f"hook {name_of(hook)} failed and is turned off for the rest of the run: {why}"
            self._warn(f"hook {id(hook)}", text)

        self._code.call(partial(hook, evaluation, evaluation.decision), failed)


def _copy_of(run: RunInfo) -> RunInfo:
    """The same for one sink; settings may be objects that cannot be copied."""
    return replace(
        run,
        hparams=dict(run.hparams),
        columns=dict(run.columns),
        ceilings=dict(run.ceilings),
        evaluations=deepcopy(run.evaluations),
        repeated=deepcopy(run.repeated),
    )
