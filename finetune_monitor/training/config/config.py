"""The whole config, and what its sections must agree on."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, model_validator

from finetune_monitor.base.sections import Section, flat
from finetune_monitor.monitor.stopping import StoppingRule, not_measured, problems_of_rule
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.training.config.data import DataConfig
from finetune_monitor.training.config.kinds import Seed, UserPath
from finetune_monitor.training.config.monitor import MonitorConfig
from finetune_monitor.training.config.subject import subject_words, words_of
from finetune_monitor.training.config.train import TrainConfig
from finetune_monitor.training.own import classes_of
from finetune_monitor.training.registry import METRICS

if TYPE_CHECKING:
    from finetune_monitor.models.base_model import BaseModel

EVERYDAY_PROMPTS = ("a photo of a man", "a photo of a woman")
"""Probes in addition to the class prompt: common prompts for a model that knows people."""

NUMBERS = ("no", "one", "two", "three")
"""Words for the minimum number of list entries that a column may need."""


class Config(Section):
    model: str = Field(
        min_length=1,
        description="Base model of Stable Diffusion 1.x, 2.x, or SDXL: a hub id, a folder in diffusers layout, or a "
        "file (.safetensors, .ckpt).",
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5"],
    )
    revision: str | None = Field(None, description="Branch, tag, or commit of a hub id; null: the newest.")
    variant: str | None = Field(
        None,
        description="Variant of the files with weights, such as fp16; null: the plain ones, or else fp16.",
    )
    vae: str | None = Field(
        None, description="Another VAE: a hub id, a folder, or a file; null: that of the base model."
    )
    embeddings: list[UserPath] = Field(
        [],
        description="Files with textual-inversion embeddings; the word for each is its name without the suffix. "
        "Not for SDXL.",
    )
    layout: str | None = Field(
        None,
        description="Settings for a model that is one file: sd1, sd2, sd2-v (velocity), sdxl, or a folder in diffusers "
        "layout. null: sd1 or sdxl, if the file fits.",
    )
    output_dir: UserPath = Field(
        description="The run directory, for everything that the run writes.", examples=["runs/ana"]
    )
    seed: Seed = Field(0, description="Seed of the training.")
    data: DataConfig = Field(description="Photos and prompts.")
    train: TrainConfig = Field(TrainConfig(), description="How the weights are trained.")
    monitor: MonitorConfig = Field(description="What is rendered, measured, and shown, and when to stop.")

    @model_validator(mode="after")
    def _prior_needs_class(self) -> "Config":
        if self.prior_preservation and not (self.data.class_images and self.data.class_prompt):
            raise ValueError(
                f"train.prior_loss_weight is {self.train.prior_loss_weight:g}, but data.class_images or "
                "data.class_prompt is missing; name both, or set train.prior_loss_weight to 0"
            )
        return self

    @model_validator(mode="after")
    def _probes_leave_the_subject_out(self) -> "Config":
        names = subject_words(self.data) if self.data.class_prompts else set()
        for prompt in self.probe_prompts:
            if found := names & set(words_of(prompt)):
                raise ValueError(
                    f"monitor.grid.probe_prompts: {prompt!r} contains {found.pop()!r}, which names the subject; use "
                    "prompts for other people"
                )
        return self

    @model_validator(mode="after")
    def _leakage_is_of_a_similarity(self) -> "Config":
        leakage, similarity = (self.monitor.metrics.chosen.get(name) for name in ("leakage", "face_similarity"))
        if leakage is None:
            return self
        if similarity is None:
            raise ValueError(
                "monitor.metrics.leakage: needs face_similarity, because it is a share of its rise; add it too"
            )
        if leakage.recognizer not in (None, similarity.recognizer):
            raise ValueError(
                f"monitor.metrics.leakage.recognizer: found {leakage.recognizer}, expected {similarity.recognizer}, "
                "the recognizer of face_similarity, because leakage is a share of its rise; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _rules_watch_what_is_measured(self) -> "Config":
        if not self.monitor.is_read:
            return self
        problems = [
            f"monitor.stopping.{index}.{problem}"
            for index, rule in enumerate(self.monitor.rules)
            for problem in self._problems_of_rule(rule)
        ]
        if problems and "stopping" not in self.monitor.model_fields_set:
            own = next(iter(self.monitor.metrics.chosen))
            problems.append(
                f"this is the default of monitor.stopping; set it to [{{metric: {own}}}], or to [] for none"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_rule(self, rule: StoppingRule) -> list[str]:
        if unmeasured := self.unmeasured(rule.metric):
            return [f"metric: {unmeasured}"]
        return problems_of_rule(rule, self.prompt_grid, self.monitor.columns)

    def unmeasured(self, column: str) -> str:
        """Why the run does not measure a column, and what to do; "" if it does or may measure it."""
        columns = self.monitor.columns
        if column not in columns:
            given = [name for name in columns if self._gives(columns[name])]
            return "" if self.monitor.may_measure_more else not_measured(column, given)
        if not self._gives(columns[column]):
            return f"{column} needs {_needed(columns[column].needs)}"
        return ""

    def _gives(self, column: ScoreColumn) -> bool:
        """Whether the key that the column needs is set."""
        return not column.needs or reduce(_part, column.needs.split("."), self) is not None

    @property
    def main_columns(self) -> list[str]:
        """The scores that the run measures, without stars; the one that determines the best step comes first."""
        found = [name for name, each in self.monitor.columns.items() if each.role == "score" and self._gives(each)]
        return list(dict.fromkeys([self.best_metric, *found]))

    @property
    def best_metric(self) -> str:
        """The column that determines the best step."""
        return self.monitor.rules[0].metric if self.monitor.stopping else next(iter(self.monitor.metrics.chosen))

    @property
    def prompt_grid(self) -> PromptGrid:
        """The monitor's grid at the training resolution."""
        options = {**dict(self.monitor.grid), "probe_prompts": self.probe_prompts}
        return PromptGrid(**options, size=(self.data.resolution, self.data.resolution))

    @property
    def probe_prompts(self) -> Sequence[str]:
        """The prompts in the config, or otherwise, if a metric uses probes, the class prompt and two common ones."""
        given = self.monitor.grid.probe_prompts
        kinds = classes_of(METRICS, self.monitor.metrics).values()
        if given or not any(getattr(kind, "needs_probes", False) for kind in kinds):
            return given
        return list(dict.fromkeys((*self.data.class_prompts[:1], *EVERYDAY_PROMPTS)))

    @property
    def base_model(self) -> "BaseModel":
        """The base model with its parts."""
        from finetune_monitor.models.base_model import BaseModel

        return BaseModel(self.model, self.revision, self.variant, self.vae, tuple(self.embeddings), self.layout)

    @property
    def prior_preservation(self) -> bool:
        return self.train.prior_loss_weight > 0

    def compiled(self, is_on: bool) -> "Config":
        """The config with what `train.compile: auto` has decided."""
        return self.model_copy(update={"train": self.train.model_copy(update={"compile": is_on})})

    def to_yaml(self) -> str:
        """The resolved config, with every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Dotted keys with plain values for the trackers' tables; values that trackers do not accept become text."""
        values = flat(self.model_dump(mode="json"))
        return {key: each if isinstance(each, (str, int, float, bool)) else str(each) for key, each in values.items()}


def _part(found: Any, key: str) -> Any:
    """The value under a key of a section, or at an index of a list; None beyond its end."""
    if not key.isdigit():
        return getattr(found, key)
    return found[int(key)] if int(key) < len(found) else None


def _needed(key: str) -> str:
    """What to set, in words; an index in a list means that so many entries are needed."""
    above, _, last = key.rpartition(".")
    if not last.isdigit():
        return f"{key}; give it a value"
    return f"{NUMBERS[int(last) + 1]} {above.rpartition('.')[2]} or more; add to {above}"
