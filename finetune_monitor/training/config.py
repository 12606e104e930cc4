"""The YAML config: its keys, types and defaults, and one message for everything that is wrong with it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.record.columns import HELD_OUT, SIDE_COLUMNS, STARS
from finetune_monitor.record.grid import PromptGrid

PRODIGY_RATE = 0.01
"""A smaller factor on Prodigy's own step size is a rate meant for AdamW: the run would learn next to nothing."""

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]

Precision = Annotated[
    Literal["no", "fp16", "bf16"],
    BeforeValidator(lambda found: "no" if found is False else found),  # YAML reads a bare `no` as false
]


def _caching(found: Any) -> Any:
    """YAML reads a bare on, yes, off or no as a truth value."""
    return found if not isinstance(found, bool) else "always" if found else "never"


Caching = Annotated[Literal["auto", "always", "never"], BeforeValidator(_caching)]


def _held_out(found: Any) -> Any:
    is_count = isinstance(found, int) and not isinstance(found, bool) and found > 0
    if found is None or is_count or isinstance(found, Path) or (isinstance(found, str) and found):
        return found
    raise ValueError(f"found {found!r}, expected a number of photos from 1, a folder with further photos, or null")


HeldOut = Annotated[int | UserPath | None, BeforeValidator(_held_out)]


class Section(BaseModel):
    """A part of the config: unknown keys are errors, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    instance_images: UserPath
    instance_count: int | None = Field(None, ge=1)
    held_out: HeldOut = None
    instance_prompt: str = Field(min_length=1)
    class_images: UserPath | None = None
    class_prompt: str | None = None
    class_count: int = Field(200, ge=1)
    resolution: int = Field(512, ge=64, multiple_of=8)
    random_crop: bool = False
    random_flip: bool = False
    workers: int = Field(2, ge=0)


class TrainConfig(Section):
    method: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1)
    lora_alpha: float | None = Field(None, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_layers: list[Literal["attention", "feed_forward", "convolution"]] = Field(["attention"], min_length=1)
    text_encoder: bool = False
    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    text_encoder_learning_rate: float | None = Field(None, gt=0)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_steps: int = Field(3000, ge=1)
    batch_size: int = Field(1, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    mixed_precision: Precision = "no"
    compile: bool = False
    cache_latents: Caching = "auto"
    prior_loss_weight: float = Field(1.0, ge=0)
    snr_gamma: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    checkpoint_every: int = Field(300, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    resume: str = "auto"

    @model_validator(mode="after")
    def _prodigy_finds_the_rate(self) -> "TrainConfig":
        if self.optimizer != "prodigy":
            return self
        if self.learning_rate < PRODIGY_RATE:
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}, and optimizer is prodigy, which finds the step size by "
                f"itself and multiplies it by learning_rate; expected {PRODIGY_RATE:g} or more, set it to 1.0"
            )
        if self.text_encoder_learning_rate not in (None, self.learning_rate):
            raise ValueError(
                f"text_encoder_learning_rate is {self.text_encoder_learning_rate:g}, but prodigy knows one rate for "
                "all that is trained; leave it out"
            )
        return self


class GridConfig(Section):
    prompts: list[str] = Field(min_length=1)
    seeds: list[int] = Field([0, 1, 2, 3], min_length=1)
    negative_prompt: str = ""
    steps: int = Field(25, ge=1)
    guidance: float = Field(7.5, ge=0)
    sampler: str = "DPMSolverMultistepScheduler"
    karras: bool = False

    @model_validator(mode="after")
    def _no_repeats(self) -> "GridConfig":
        for name, values in (("prompts", self.prompts), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} are repeated in {values!r}; each must stand once")
        return self


class FaceSimilarityConfig(Section):
    recognizer: str = "vggface2"


class AestheticConfig(Section):
    clip: str = "ViT-L-14-quickgelu"
    pretrained: str | None = "openai"
    head: str = "sac+logos+ava1-l14-linearMSE"


class MetricsConfig(Section):
    face_similarity: FaceSimilarityConfig | None = FaceSimilarityConfig()
    aesthetic: AestheticConfig | None = AestheticConfig()

    @property
    def chosen(self) -> list[str]:
        return [name for name in SIDE_COLUMNS if getattr(self, name) is not None]


class StoppingConfig(Section):
    rule: Literal["patience"] = "patience"
    metric: str = "face_similarity"
    patience: int = Field(4, ge=1)
    min_delta: float = Field(0.005, ge=0)


class TensorBoardConfig(Section):
    pass


class WandbConfig(Section):
    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = "finetune-monitor"
    entity: str | None = None
    name: str | None = None
    images: bool = True


class SinksConfig(Section):
    tensorboard: TensorBoardConfig | None = None
    wandb: WandbConfig | None = None


class MonitorConfig(Section):
    enabled: bool = True
    every: int = Field(300, ge=1)
    max_overhead: float | None = Field(None, gt=0, lt=1)
    grid: GridConfig
    metrics: MetricsConfig = MetricsConfig()
    thresholds: UserPath | None = None
    stopping: list[StoppingConfig] = [StoppingConfig()]
    sinks: SinksConfig = SinksConfig(tensorboard=TensorBoardConfig())
    report: bool = False

    @model_validator(mode="after")
    def _rules_watch_what_is_measured(self) -> "MonitorConfig":
        columns = [column for name in self.metrics.chosen for column in (name, *SIDE_COLUMNS[name])]
        if not columns:
            raise ValueError("metrics: found none, expected at least one of " + ", ".join(SIDE_COLUMNS))
        columns += [HELD_OUT] if self.metrics.face_similarity else []
        stars = [name + STARS for name in self.metrics.chosen]
        if self.thresholds is not None:
            columns += stars
        for index, rule in enumerate(self.stopping):
            if rule.metric in stars and self.thresholds is None:
                raise ValueError(f"stopping.{index}.metric: {rule.metric} needs monitor.thresholds; name the file")
            if rule.metric not in columns:
                raise ValueError(
                    f"stopping.{index}.metric: found {rule.metric!r}, expected one of {', '.join(columns)}"
                    + nearest(rule.metric, columns)
                )
        return self


class Config(Section):
    model: str = Field(min_length=1)
    output_dir: UserPath
    seed: int = Field(0, ge=0)
    data: DataConfig
    train: TrainConfig = TrainConfig()
    monitor: MonitorConfig

    @model_validator(mode="after")
    def _prior_needs_class(self) -> "Config":
        if self.prior_preservation and not (self.data.class_images and self.data.class_prompt):
            raise ValueError(
                f"train.prior_loss_weight is {self.train.prior_loss_weight:g}, but data.class_images or "
                "data.class_prompt is missing; name both, or set train.prior_loss_weight to 0"
            )
        return self

    @model_validator(mode="after")
    def _rules_watch_photos_that_are_held_out(self) -> "Config":
        for index, rule in enumerate(self.monitor.stopping):
            if rule.metric == HELD_OUT and self.data.held_out is None:
                raise ValueError(
                    f"monitor.stopping.{index}.metric: {HELD_OUT} needs data.held_out; give a number of photos or a "
                    "folder"
                )
        return self

    @property
    def prompt_grid(self) -> PromptGrid:
        """The monitor's grid at the training's resolution."""
        return PromptGrid(**self.monitor.grid.model_dump(), size=(self.data.resolution, self.data.resolution))

    @property
    def prior_preservation(self) -> bool:
        return self.train.prior_loss_weight > 0

    def to_yaml(self) -> str:
        """The resolved config, with every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Dotted keys with plain values, for the trackers' tables of hyperparameters."""
        return dict(_flatten(self.model_dump(mode="json")))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `dotted.key=value` overrides and validate.

    Raises:
        UserError: lists every unknown key (with the nearest known one), wrong type and value out of range at once.
    """
    content = read_yaml(path)
    for change in overrides:
        override(content, change)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        all_problems(problems_of(error), f"{path}: the config is not valid")
        raise


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"found twice: {', '.join(repeated)}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: the file cannot be read, is not valid YAML or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config ({error.strerror}); check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, expected keys such as model, output_dir, data")
    return content


def override(content: dict[str, Any], change: str) -> None:
    """Apply one `dotted.key=value` to the content of a config, in place."""
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise UserError(f"{change}: expected an override as dotted.key=value, such as train.max_steps=500")
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.get(parent)
        content[parent] = inner if isinstance(inner, dict) else {}
        content = content[parent]
    try:
        content[last] = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{change}: the value is not valid YAML: {error}") from error


def problems_of(error: ValidationError, model: type[Section] = Config) -> list[str]:
    """Everything that is wrong with the content of a config, in words."""
    return [_explain(found, model) for found in error.errors()]


def _explain(found: Mapping[str, Any], model: type[Section]) -> str:
    """One problem in words: the key, what was found, what is allowed."""
    location = [str(part) for part in found["loc"]]
    key = ".".join(location)
    if found["type"] == "extra_forbidden":
        return f"{key}: unknown key" + nearest(location[-1], _keys_beside(location, model))
    if found["type"] == "missing":
        return f"{key}: missing; give it a value"
    if found["type"] == "value_error":
        return f"{key + ': ' if key else ''}{found['ctx']['error']}"
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"{key}: found {found['input']!r}; {message.replace('input', 'it')}"


def _keys_beside(location: Sequence[str], model: type[Section]) -> list[str]:
    section: Any = model
    for part in location[:-1]:
        section = section_of(section, part)
    return list(section.model_fields) if section else []


def section_of(section: Any, part: str) -> Any:
    """The model behind a field's annotation, also inside `X | None` and `list[X]`."""
    if section is None or part.isdigit() or part not in section.model_fields:
        return section
    annotation = section.model_fields[part].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def nearest(found: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or the known words where none is near."""
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else f" (known here: {', '.join(known)})"


def _flatten(node: Any, prefix: str = "") -> Any:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, name + ".")
        else:
            yield name, value if isinstance(value, (str, int, float, bool)) else str(value)
