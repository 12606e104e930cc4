"""The YAML config: its keys, types, and defaults, and one message that lists all problems."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.places import imported
from finetune_monitor.base.sections import (
    Choices,
    Section,
    arguments_of,
    choices,
    did_you_mean,
    flat,
    problems_of,
    section_of_options,
)
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.base.yaml_files import override, read_yaml
from finetune_monitor.monitor.budget import EVERY
from finetune_monitor.monitor.keeping import AUTO as AUTO_KEEP
from finetune_monitor.monitor.keeping import KEEP_PATTERN, checked_keep
from finetune_monitor.monitor.rules.plateau import Plateau
from finetune_monitor.monitor.stopping import StoppingRule, problems_of_rule
from finetune_monitor.record.columns import ScoreColumn, stars_of
from finetune_monitor.record.evaluation import Decision, Evaluation
from finetune_monitor.record.grid import DEFAULT_SAMPLER, PromptGrid
from finetune_monitor.sinks import Sink
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
from finetune_monitor.training.photo_folder import list_photos
from finetune_monitor.training.registry import HOOKS, METRICS, RULES, SINKS
from finetune_monitor.training.shipped import shipped, with_shipped

DEFAULT_RULE = Plateau.name

EVERYDAY_PROMPTS = ("a photo of a man", "a photo of a woman")
"""Probes in addition to the class prompt: common prompts for a model that knows people."""

PRODIGY_RATE = 0.01
"""A smaller factor on Prodigy's own step size must be a rate meant for AdamW: the run would learn almost nothing."""

AUTO, HELD_OUT, ENOUGH_PHOTOS = "auto", 2, 8
"""How many photos `auto` holds out, and from how many photos on; with fewer, none can be spared."""

EARLIER: Mapping[str, Any] = {"crop": "center", "captions": False}
"""Keys of `data` that earlier versions did not know, with what they did."""

NUMBERS = ("no", "one", "two", "three")
"""Words for the minimum number of list entries that a column may need."""


def _user_path(found: Path) -> Path:
    try:
        return user_path(found)
    except UserError as error:
        raise ValueError(f"found {error}") from error


UserPath = Annotated[Path, AfterValidator(_user_path)]

Precision = Annotated[
    Literal["no", "fp16", "bf16"],
    BeforeValidator(lambda found: "no" if found is False else found),  # YAML reads a bare `no` as false
]


def _caching(found: Any) -> Any:
    """Undo YAML's reading of a bare on, yes, off, or no as a boolean."""
    return found if not isinstance(found, bool) else "always" if found else "never"


Caching = Annotated[Literal["auto", "always", "never"], BeforeValidator(_caching)]


def _held_out(found: Any, info: Any) -> Any:
    """A number, a folder, or none; `auto` becomes the number that the folder of photos allows."""
    if found == AUTO:
        return _spared(info.data.get("instance_images"), info.data.get("instance_count"))
    is_count = isinstance(found, int) and not isinstance(found, bool) and found > 0
    if found is None or is_count or isinstance(found, Path) or (isinstance(found, str) and found):
        return found
    raise ValueError(
        f"found {found!r}, expected a number of photos (1 or more), a folder with other photos, auto, or null"
    )


def _spared(folder: Path | None, used: int | None) -> int | None:
    """How many photos are held out by default: two if there are at least eight."""
    try:
        found = len(list_photos(folder)) if folder is not None else 0
    except (UserError, OSError):
        return None  # reported when the photos are read
    return HELD_OUT if found >= ENOUGH_PHOTOS and found - HELD_OUT >= (used or 1) else None


HeldOut = Annotated[int | UserPath | None, BeforeValidator(_held_out)]


MEANINGS = {
    "clip": "Name of an open_clip model, or a folder in open_clip's layout.",
    "pretrained": "Tag of CLIP's weights in open_clip; ignored for a folder.",
    "recognizer": "vggface2, casia-webface, sface, dlib (comes with the package), or the path of a recognizer in ONNX "
    "format. In metrics other than face_similarity, null means the recognizer of face_similarity.",
    "metric": "Column that the rule watches; the first rule's column also decides which step is best.",
    "window": "How many evaluations are averaged on each side.",
    "patience": "How many evaluations in a row may fail to beat the best.",
    "min_delta": "Smallest improvement that counts, in the metric's unit.",
}
"""Of keys that mean the same in several sections, or less in a config than in Python."""


def meanings_of(kind: type) -> dict[str, str]:
    """What the keys of a class's section mean: as its docstring says, in the words of a config."""
    said = {name: re.sub(r"\bNone\b", "null", text) for name, text in arguments_of(kind).items()}
    return {**said, **MEANINGS}


class DataConfig(Section):
    instance_images: UserPath = Field(
        description="Folder with the photos of the subject; 5 to 20 are usual. Or a folder with kohya's folders of "
        "photos (10_sks person), whose names give repeats and a prompt.",
        examples=["photos/ana"],
    )
    instance_count: int | None = Field(
        None, ge=1, description="Train on only this many photos, the first ones in the folder; null: all."
    )
    held_out: HeldOut = Field(
        AUTO,
        validate_default=True,
        description="Photos held out of training: a number of photos at the end of the folder, or a folder with other "
        "photos. auto: two if there are eight or more. null: none.",
    )
    instance_prompt: str = Field(
        min_length=1,
        description="Training prompt of every photo without a caption; it contains a rare token that names the "
        "subject.",
        examples=["a photo of sks person"],
    )
    captions: bool = Field(
        True,
        description="Train each photo with its own caption, if it has one: text beside it (01.txt), or a line in "
        "metadata.jsonl. false: use instance_prompt for all, and each photo once.",
    )
    class_images: UserPath | None = Field(
        None,
        description="Folder with images of the class, for prior preservation; the base model generates missing ones. "
        "Required if train.prior_loss_weight is above 0.",
        examples=["photos/person"],
    )
    class_prompt: str | None = Field(
        None,
        description="Prompt of the class images: the instance prompt without the rare token.",
        examples=["a photo of a person"],
    )
    class_count: int = Field(200, ge=1, description="How many class images to use.")
    resolution: int = Field(
        512,
        ge=64,
        multiple_of=8,
        description="Width and height of the training crops and of the generated images, in pixels.",
    )
    crop: Literal["face", "center"] = Field(
        "face",
        description="face: the center square of each photo, or a square around the face if it would be cut off or too "
        "small. center: always the center square.",
    )
    random_crop: bool = Field(False, description="Train on eight random crops per photo, within its square.")
    random_flip: bool = Field(False, description="Train on mirrored photos, too.")
    workers: int = Field(
        2, ge=0, description="Processes that load photos in advance if the latents do not fit in the cache."
    )


class TrainConfig(Section):
    method: Literal["lora", "full"] = Field(
        "lora", description="lora trains low-rank layers; full trains the entire UNet."
    )
    rank: int = Field(16, ge=1, description="Rank of the LoRA layers; only for method: lora.")
    lora_alpha: float | None = Field(
        None, gt=0, description="Numerator of LoRA's scale, alpha / rank; null: equal to the rank."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability in the LoRA layers.")
    lora_layers: list[Literal["attention", "feed_forward", "convolution"]] = Field(
        ["attention"], min_length=1, description="Layers of the UNet that get LoRA layers."
    )
    text_encoder: bool = Field(False, description="Train the text encoder, too.")
    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = Field(
        "adamw",
        description="adamw8bit needs a GPU and bitsandbytes; prodigy finds the learning rate by itself and needs "
        "prodigyopt.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="Step size of the optimizer; with prodigy, set it to 1.0.")
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate of the text encoder; null: same as learning_rate."
    )
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="How the learning rate changes after the warmup."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises from 0.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_steps: int = Field(
        3000, ge=1, description="Optimizer steps after which training ends, unless a rule stops it earlier."
    )
    batch_size: int = Field(1, ge=1, description="Photos per device and step.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches per optimizer step.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations to save memory; slows down each step."
    )
    mixed_precision: Precision = Field("no", description="Precision of the forward and backward passes.")
    compile: bool = Field(False, description="Compile the UNet for training and rendering; needs a compiler.")
    cache_latents: Caching = Field(
        "auto", description="Encode all photos before the first step; auto: unless the latents exceed 1 GiB."
    )
    prior_loss_weight: float = Field(
        1.0, ge=0, description="Weight of the loss on the class images (prior preservation); 0 turns it off."
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        description="Min-SNR weighting of the loss (Hang et al. 2023); null: equal weights for all noise levels.",
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Keep an exponential moving average of the weights, and evaluate and export that."
    )
    checkpoint_every: int = Field(300, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="How many checkpoints to keep.")
    resume: str = Field(
        "auto",
        description="auto: from the latest complete checkpoint. never: reject a used output_dir. Or a checkpoint.",
    )

    @model_validator(mode="after")
    def _prodigy_finds_the_rate(self) -> "TrainConfig":
        if self.optimizer != "prodigy":
            return self
        if self.learning_rate < PRODIGY_RATE:
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}, but optimizer is prodigy, which finds the step size "
                f"itself and multiplies it by learning_rate; expected {PRODIGY_RATE:g} or more; set it to 1.0"
            )
        if self.text_encoder_learning_rate not in (None, self.learning_rate):
            raise ValueError(
                f"text_encoder_learning_rate is {self.text_encoder_learning_rate:g}, but prodigy has a single rate for "
                "everything that is trained; leave it out"
            )
        return self


def _rule(found: Any, reading: Reading) -> Section:
    return rule_section(found, reading, DEFAULT_RULE)


Keep = Annotated[
    str, AfterValidator(checked_keep), WithJsonSchema({"type": "string", "pattern": f"^({KEEP_PATTERN})$"})
]

if TYPE_CHECKING:
    from finetune_monitor.models.base_model import BaseModel

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
        description="Where evaluations are shown; any tracker of Accelerate is one, too, by its name.",
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


class Config(Section):
    model: str = Field(
        min_length=1,
        description="Base model, Stable Diffusion 1.x or 2.x: a hub id, a folder in diffusers layout, or a file "
        "(.safetensors, .ckpt).",
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
        description="Files with textual-inversion embeddings; the word for each is its name without the suffix.",
    )
    layout: str | None = Field(
        None,
        description="Settings for a model that is one file: sd1, sd2, sd2-v (velocity), or a folder in diffusers "
        "layout. null: sd1, if the file fits.",
    )
    output_dir: UserPath = Field(
        description="The run directory, for everything that the run writes.", examples=["runs/ana"]
    )
    seed: int = Field(0, ge=0, description="Seed of the training.")
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
        words = set((self.data.class_prompt or "").split())
        tokens = set(self.data.instance_prompt.split()) - words if words else set()
        for prompt in self.probe_prompts:
            if found := tokens & set(prompt.split()):
                raise ValueError(
                    f"monitor.grid.probe_prompts: {prompt!r} contains {found.pop()!r}, which names the subject; use "
                    "prompts for other people"
                )
        return self

    @model_validator(mode="after")
    def _leakage_is_of_a_similarity(self) -> "Config":
        if "leakage" in self.monitor.metrics.chosen and "face_similarity" not in self.monitor.metrics.chosen:
            raise ValueError(
                "monitor.metrics.leakage: needs face_similarity, because it is a share of its rise; add it too"
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
        return list(dict.fromkeys(filter(None, (self.data.class_prompt, *EVERYDAY_PROMPTS))))

    @property
    def base_model(self) -> "BaseModel":
        """The base model with its parts."""
        from finetune_monitor.models.base_model import BaseModel

        return BaseModel(self.model, self.revision, self.variant, self.vae, tuple(self.embeddings), self.layout)

    @property
    def prior_preservation(self) -> bool:
        return self.train.prior_loss_weight > 0

    def to_yaml(self) -> str:
        """The resolved config, with every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Dotted keys with plain values for the trackers' tables; values that trackers do not accept become text."""
        values = flat(self.model_dump(mode="json"))
        return {key: each if isinstance(each, (str, int, float, bool)) else str(each) for key, each in values.items()}


def not_measured(column: str, given: Sequence[str]) -> str:
    """The message that a rule watches a column that no metric has."""
    return f"found {column!r}, expected one of {', '.join(given)}{did_you_mean(column, given)}"


def validated(content: Any, folder: Path) -> Config:
    """The config from a file's content; `folder` is that of the file, and the config may name modules in it.

    Raises:
        ValidationError: the problems; `problems_of` makes them readable.
    """
    return Config.model_validate(with_shipped(content), context=Reading(folder))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `dotted.key=value` overrides, and validate; imports the modules that it names.

    The file and the paths in it are found in the package if they exist only there (`training.shipped`).

    Raises:
        UserError: lists all unknown keys (with the most similar known key), wrong types, and values out of range.
    """
    path = Path(shipped(str(path)))
    is_text = partial(holds_text, Config)
    content = read_yaml(path, is_text)
    for change in overrides:
        override(content, change, is_text)
    try:
        return validated(content, path.parent)
    except ValidationError as error:
        all_problems(problems_of(error, Config), f"{path}: the config is not valid")
        raise


def recorded_config(path: Path) -> tuple[Config, list[str]]:
    """The config.yaml of a recorded run, and its keys that this version does not know, which are left out.

    It may come from anybody, so the modules that it names are not imported: their options stay as written.

    Raises:
        UserError: it is not a training config, apart from such keys.
    """
    content: Any = read_yaml(path, partial(holds_text, Config))
    if is_of_earlier_version(content):
        content["data"] |= EARLIER
    unknown: list[str] = []
    while True:
        try:
            return Config.model_validate(content, context=Reading(imports=False)), unknown
        except ValidationError as error:
            strange = [found["loc"] for found in error.errors() if found["type"] == "extra_forbidden"]
            if len(strange) < error.error_count():
                all_problems(problems_of(error, Config), f"{path}: the config is not valid")
            for location in strange:
                unknown.append(_leave_out(location, content))


def is_of_earlier_version(content: Any) -> bool:
    """Whether a recorded config was written by a version that knew neither crops nor captions."""
    data = content.get("data") if isinstance(content, dict) else None
    return isinstance(data, dict) and not data.keys() & EARLIER.keys()


def as_begun(config: Config, path: Path) -> tuple[Config, list[str]]:
    """The config that a run goes on with, and the keys that it takes from its beginning in an earlier version.

    Args:
        path: the run's recorded config, which may be missing.
    """
    if not path.exists() or not is_of_earlier_version(read_yaml(path, partial(holds_text, Config))):
        return config, []
    changed = [f"data.{key}={value}" for key, value in EARLIER.items() if getattr(config.data, key) != value]
    return config.model_copy(update={"data": config.data.model_copy(update=EARLIER)}), changed


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


def _leave_out(location: Sequence[Any], content: Any) -> str:
    """Remove a key from the content; returns its dotted name."""
    *way, last = location
    for key in way:
        content = content[key]
    del content[last]
    return ".".join(map(str, location))
