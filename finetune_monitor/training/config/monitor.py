"""The config's `monitor`: what is rendered, measured, and shown, and when to stop."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator

from finetune_monitor.base.places import imported
from finetune_monitor.base.sections import Choices, Section, choices, section_of_options
from finetune_monitor.monitor.budget import EVERY
from finetune_monitor.monitor.keeping import AUTO as AUTO_KEEP
from finetune_monitor.monitor.keeping import KEEP_PATTERN, checked_keep
from finetune_monitor.monitor.rules.plateau import Plateau
from finetune_monitor.monitor.stopping import StoppingRule
from finetune_monitor.record.columns import ScoreColumn, stars_of
from finetune_monitor.record.evaluation import Decision, Evaluation
from finetune_monitor.record.grid import DEFAULT_SAMPLER, FULL, STEPS, PromptGrid
from finetune_monitor.sinks import Sink
from finetune_monitor.training.config.kinds import UserPath, meanings_of
from finetune_monitor.training.own import (
    HOOK,
    RULE,
    Reading,
    Unread,
    classes_of,
    columns_of,
    metric_section,
    options_in,
    read_hook,
    rule_section,
    sink_section,
    with_reading,
)
from finetune_monitor.training.registry import HOOKS, METRICS, RULES, SINKS

DEFAULT_RULE = Plateau.name


def _rule(found: Any, reading: Reading) -> Section:
    return rule_section(found, reading, DEFAULT_RULE)


Keep = Annotated[
    str, AfterValidator(checked_keep), WithJsonSchema({"type": "string", "pattern": f"^({KEEP_PATTERN})$"})
]

if TYPE_CHECKING:

    class GridConfig(Section, PromptGrid): ...

    class MetricsConfig(Choices): ...

    class SinksConfig(Choices):
        tensorboard: Mapping[str, Any] | None = None

    class RuleConfig(Section, Plateau):
        rule: str

    HookConfig = str | Section

else:
    # The size is data.resolution; models trained here never use flow matching, which has its own sampler.
    GridConfig = section_of_options(
        PromptGrid,
        leaving=("size",),
        meanings=meanings_of(PromptGrid),
        prompts=(Annotated[Sequence[str], Field(examples=[["a photo of sks person"]])], ...),
        sampler=(str, DEFAULT_SAMPLER),
        quality=(Literal[tuple(STEPS)], FULL),
    )
    MetricsConfig = choices("MetricsConfig", METRICS.classes, with_reading(metric_section), meanings_of)
    SinksConfig = choices("SinksConfig", SINKS.classes, with_reading(sink_section), meanings_of)
    RuleConfig = Annotated[Any, PlainValidator(with_reading(_rule))]
    HookConfig = Annotated[Any, PlainValidator(with_reading(read_hook))]


class MonitorConfig(Section):
    enabled: bool = Field(True, description="false trains without any evaluation.")
    every: int = Field(EVERY, ge=1, description="Steps between evaluations.")
    max_overhead: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest share of the time that evaluations can take; one that would exceed it moves to a later "
        "multiple of every. null: no limit.",
    )
    grid: GridConfig = Field(description="The images that every evaluation generates.")
    metrics: MetricsConfig = Field(MetricsConfig(), description="What is measured; null turns a metric off.")
    thresholds: UserPath | None = Field(
        None, description="A thresholds.json from finetune-monitor agree, which adds 1 to 5 stars to the scores."
    )
    stopping: list[RuleConfig] = Field(
        [{}], validate_default=True, description="Stopping rules; the first one that fires stops the run. []: none."
    )
    keep: Keep = Field(
        AUTO_KEEP,
        description="Steps whose weights are kept: all; best, with the newest, which may become it; pareto, those that "
        "no other step beats in two scores; or last N, such as last 3. What may become the best is always kept. auto: "
        "all for method: lora, best for method: full.",
    )
    sinks: SinksConfig = Field(
        SinksConfig(tensorboard={}),
        description="Where evaluations are shown; TensorBoard only unless others are named. Any tracker of Accelerate "
        "is a sink, too, by its name.",
    )
    hooks: list[HookConfig] = Field(
        [],
        description="Who is told of events: functions, as module:name, called as on_evaluation(evaluation, decision) "
        "after each evaluation; commands and webhooks, as sections with hook: command or hook: webhook.",
    )
    evaluation_timeout: float | None = Field(
        None,
        gt=0,
        description="Seconds that the metrics, rules, sinks, and hooks of one evaluation may take together; what is "
        "not finished is missing, and training continues. null: no limit.",
    )
    on_failure: Literal["raise", "warn"] = Field(
        "raise",
        description="If no image can be generated before the first step: raise ends the run with an error, warn trains "
        "without images.",
    )

    @property
    def columns(self) -> dict[str, ScoreColumn]:
        """Every column that the metrics are known to have, by name; with stars if there is a thresholds file."""
        found: dict[str, ScoreColumn] = {}
        for name, kind in classes_of(METRICS, self.metrics).items():
            found |= columns_of(kind)[0]
            found[stars_of(name)] = ScoreColumn(role="stars", of=name, needs="monitor.thresholds")
        return found

    @property
    def may_measure_more(self) -> bool:
        """Whether some metric reveals what it measures only once it is created."""
        return not all(columns_of(kind)[1] for kind in classes_of(METRICS, self.metrics).values())

    @property
    def rules(self) -> list[StoppingRule]:
        """The stopping rules that the config names, except those that were not imported."""
        read = [section for section in self.stopping if not isinstance(section, Unread)]
        return [RULES.find(getattr(section, RULE))(**options_in(section, RULE)) for section in read]

    @property
    def made_hooks(self) -> list[Callable[[Evaluation, Decision], object] | Sink]:
        """The hooks that the config names, except those that were not imported."""
        read = [hook for hook in self.hooks if not isinstance(hook, Unread)]
        return [
            imported(hook) if isinstance(hook, str) else HOOKS[getattr(hook, HOOK)](**options_in(hook, HOOK))
            for hook in read
        ]

    @property
    def is_read(self) -> bool:
        """Whether every class that it names was imported."""
        sections = [*self.metrics.chosen.values(), *self.sinks.chosen.values(), *self.stopping]
        return not any(isinstance(section, Unread) for section in sections)

    @model_validator(mode="after")
    def _measures_something(self) -> "MonitorConfig":
        if not self.metrics.chosen:
            raise ValueError("metrics: found none, expected at least one of " + ", ".join(METRICS.names))
        return self
