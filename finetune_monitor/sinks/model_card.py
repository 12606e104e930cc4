"""The model card of a step's weights, in the Hugging Face Hub's format."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular, sha256, staged_folder, write_atomic
from finetune_monitor.base.json_files import DAMAGE, as_number, read_object
from finetune_monitor.base.redaction import redacted
from finetune_monitor.base.text import caption, encoded, escaped, spoken, table
from finetune_monitor.base.version import __version__
from finetune_monitor.record.alarms import alarms_of, levels_of
from finetune_monitor.record.evaluation import Evaluation, ScoredImage
from finetune_monitor.record.grid import sampling_in_words, trigger_prompt
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.kept_weights import (
    CARD,
    NOTE,
    OTHER_ADAPTERS,
    SAMPLES,
    KeptWeights,
    adapters_in_words,
    step_of,
)
from finetune_monitor.record.pareto import ParetoFront, pareto_front
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.intervals import WHAT_THEY_KNOW

REPOSITORY = "OWNER/NAME"
"""The placeholder for the repository in a card until the weights are pushed."""

TAGS = ("text-to-image", "diffusers")
SD_TAGS = ("stable-diffusion", "stable-diffusion-diffusers")
TAGS_OF = {"StableDiffusionXLPipeline": ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")}
"""Those of base models other than Stable Diffusion, by the pipeline's class."""

TRAINED_TAGS = ("diffusers-training",)
"""Tags of diffusers' own training scripts; the last one is only for weights that were trained here."""

LORA_TAGS = ("lora", "template:sd-lora")
"""Those of a LoRA; the second one shows the samples as a gallery."""

PROMPTS = ("data.instance_prompt", "data.class_prompt")
"""Settings outside `train` whose text is shown; other texts may be private, such as the names of folders."""

ARROWS = {True: " ↑", False: " ↓", None: ""}


@dataclass(frozen=True)
class ModelCard:
    """The text of a card, and the recorded images that it shows, by their name in its folder of samples."""

    text: str
    samples: Mapping[str, Path]


def write_card(history: RunHistory, folder: Path, own: Mapping[str, Any]) -> None:
    """Write the card of the weights in a folder next to them.

    Args:
        own: fields of the front matter that somebody has set (`own_fields`).

    Raises:
        UserError: the folder has no weights of a recorded step.
    """
    step = step_of(folder)
    if step is None:
        raise UserError(f"{folder}: found no weights, expected a file {NOTE} that names their step")
    card = make_card(history, KeptWeights(step, folder), own)
    with staged_folder(folder / SAMPLES) as staged:
        for name, source in card.samples.items():
            shutil.copyfile(source, staged / name)
    write_atomic(folder / CARD, encoded(card.text))


def own_fields(folder: Path) -> dict[str, Any]:
    """The front matter of the card in a folder, such as a license that somebody has set; empty if there is none."""
    try:
        return front_matter(read_regular(folder / CARD))
    except (OSError, ValueError):
        return {}


def front_matter(card: bytes) -> dict[str, Any]:
    """The fields at the head of a card.

    Raises:
        ValueError: they are damaged.
    """
    import yaml
    from huggingface_hub import RepoCard

    try:
        data = RepoCard(card.decode(), ignore_metadata_errors=True).data
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from error
    found: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return found


def make_card(history: RunHistory, weights: KeptWeights, own: Mapping[str, Any] | None = None) -> ModelCard:
    """The card of a step's weights.

    It has neither photos nor names of folders and files on this machine, and no secrets.

    Args:
        own: fields of the front matter that are kept where the card has none of its own.

    Raises:
        UserError: the step was not recorded.
    """
    evaluation = history.at(weights.step)
    if evaluation is None:
        raise UserError(f"{history.output_dir}: has no evaluation at step {weights.step}, expected one to describe")
    full = _at_full_quality(history, weights.step)
    samples = list(_samples(history, full or evaluation))
    front = _front_matter(history, weights, samples)
    front = {**front, **{key: value for key, value in (own or {}).items() if key not in front}}
    text = "\n\n".join([_front_text(front), *_sections(history, weights, evaluation, samples)])
    return ModelCard(text + "\n", {_sample_name(image): history.output_dir / str(image.file) for image in samples})


def _at_full_quality(history: RunHistory, step: int) -> Evaluation | None:
    """What the weights of a step give at full quality, if the run was fast and has rendered it."""
    return next((found for found in history.full_quality if found.step == step), None)


def _samples(history: RunHistory, evaluation: Evaluation) -> Iterator[ScoredImage]:
    """The first image of each of the subject's prompts: chosen by nothing but its place in the grid."""
    seen: set[str] = set()
    folder = (history.output_dir / "images").resolve()
    for image in evaluation.images:
        file = (history.output_dir / (image.file or "")).resolve()
        exists = file.is_relative_to(folder) and file.is_file()  # somebody else's record may name any file
        if exists and not image.cell.is_probe and image.cell.prompt not in seen:
            seen.add(image.cell.prompt)
            yield image


def _sample_name(image: ScoredImage) -> str:
    return Path(str(image.file)).name


def _front_matter(history: RunHistory, weights: KeptWeights, samples: Sequence[ScoredImage]) -> dict[str, Any]:
    """The fields that the Hub and diffusers read; without a license, which is the user's choice."""
    base = _base_model(weights)
    trained = () if history.is_score else TRAINED_TAGS
    family = TAGS_OF.get(history.pipeline.get("class", ""), SD_TAGS)
    return {
        **({"base_model": base} if base else {}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": [*TAGS, *family, *trained, *(LORA_TAGS if weights.is_lora else ()), "finetune-monitor"],
        "instance_prompt": caption(trigger_prompt(history.grid, history.hparams)),
        "widget": [
            {"text": caption(image.cell.prompt), "output": {"url": f"{SAMPLES}/{_sample_name(image)}"}}
            for image in samples
        ],
    }


def _base_model(weights: KeptWeights) -> str | None:
    """The base model's id on the hub; None for a folder, whose name may be private."""
    found = read_object(weights.folder / NOTE, "weights").get("base_model")
    return str(found) if found else None


def _other_adapters(weights: KeptWeights) -> str:
    """The adapters that made the images together with these weights, in words; empty if there are none."""
    found = read_object(weights.folder / NOTE, "weights").get(OTHER_ADAPTERS) or {}
    try:
        return adapters_in_words({str(name): [as_number(each) for each in own] for name, own in found.items()})
    except DAMAGE:  # somebody else's file
        return ""


def _front_text(front: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    return f"---\n{ModelCardData(**front).to_yaml()}\n---"


def _sections(
    history: RunHistory,
    weights: KeptWeights,
    evaluation: Evaluation,
    samples: Sequence[ScoredImage],
) -> Iterator[str]:
    yield f"# {escaped(history.output_dir.resolve().name)}"
    yield from ["<Gallery />"] if weights.is_lora else []
    yield from (f"> {escaped(notice)}" for notice in history.notices)
    yield _what_it_is(history, weights)
    yield f"## Use\n\n{_use(history, weights)}"
    yield f"## Scores\n\n{_scores(history, weights.step)}"
    if levels_of(history.columns):
        yield f"## Alarms\n\n{_alarms(history, evaluation)}"
    yield f"## Samples\n\n{_sample_list(history, samples)}"
    yield f"## Settings\n\n{_settings(history)}"
    yield f"## Files\n\n{_hashes(weights.folder)}"
    yield f"{'Measured' if history.is_score else 'Trained and measured'} with finetune_monitor {__version__}."


def _what_it_is(history: RunHistory, weights: KeptWeights) -> str:
    kind = "A LoRA for" if weights.is_lora else "A complete pipeline, fine-tuned from"
    base = _base_model(weights)
    origin = f"[{base}](https://huggingface.co/{base})" if base else "a model in a local folder"
    best = f", the best one by {escaped(history.best_metric or '')}" if weights.step == history.best_step else ""
    trigger = _code(caption(trigger_prompt(history.grid, history.hparams)))
    others = _other_adapters(weights)
    said = (
        "\n\nThe images and scores are made with other adapters, too, which are not among these files: "
        f"{escaped(others)}. To get such images, load them as well."
    )
    return (
        f"{kind} {origin}: the weights of step {weights.step}{best}.{said if others else ''}\n\n"
        f"Trigger prompt: {trigger}"
    )


def _use(history: RunHistory, weights: KeptWeights) -> str:
    prompt = json.dumps(caption(trigger_prompt(history.grid, history.hparams)), ensure_ascii=False)
    loaded = (_base_model(weights) or "BASE_MODEL") if weights.is_lora else REPOSITORY
    lines = [
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipe = DiffusionPipeline.from_pretrained("{loaded}").to("cuda")',
        *([f'pipe.load_lora_weights("{REPOSITORY}")'] if weights.is_lora else []),
        f"image = pipe({prompt}).images[0]",
        "```",
    ]
    kohya = weights.kohya_file
    others = f"For ComfyUI, AUTOMATIC1111, and Forge, download {_code(kohya.name)}." if kohya else ""
    return "\n".join([*lines, "", others]).rstrip()


def _scores(history: RunHistory, step: int) -> str:
    """A row a step, one for the weights at full quality, and one for the photos themselves."""
    columns = history.main_columns
    names = [escaped(spoken(name)) + ARROWS[each.higher_is_better] for name, each in columns.items()]
    head = ["step", *names]
    rows = [
        [str(found.step), *(_shown(found.scores.get(name)) for name in columns), _marks(history, found, step)]
        for found in history.evaluations
    ]
    if (full := _at_full_quality(history, step)) is not None:
        steps = f"these weights at full quality: {history.grid.at_full_quality.steps} steps, not {history.grid.steps}"
        rows.append([str(step), *(_shown(full.scores.get(name)) for name in columns), steps])
    if history.ceilings:
        rows.append(["photos", *(_shown(history.ceilings.get(name)) for name in columns), "the photos themselves"])
    align = ["---:"] * len(head) + ["---"]
    front = _front(history)
    note = f"On the Pareto front: no other step is better in both {' and '.join(front.columns)}." if front else ""
    said = f"Means over the grid's images. {WHAT_THEY_KNOW} {escaped(note)}".rstrip()
    return f"{said}\n\n{table([*head, ''], rows, align)}"


def _front(history: RunHistory) -> ParetoFront | None:
    return pareto_front(history.evaluations, history.columns, history.best_metric or "")


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None or math.isnan(estimate.mean) else escaped(shown(estimate))


def _marks(history: RunHistory, evaluation: Evaluation, step: int) -> str:
    """What is special about a step."""
    front = _front(history)
    on_front = front is not None and evaluation.step in front.steps
    marks = {
        "base model": evaluation.step == 0,
        "best": evaluation.step == history.best_step,
        "these weights": evaluation.step == step,
        "on the Pareto front": on_front,
    }
    alarms = [f"alarm: {escaped(name)}" for name in evaluation.alarms]
    return ", ".join([*(mark for mark, holds in marks.items() if holds), *alarms])


def _alarms(history: RunHistory, evaluation: Evaluation) -> str:
    found = [f"- {escaped(alarm)}" for alarm in alarms_of(evaluation, history.columns)]
    return "\n".join(found) or f"None sounds at step {evaluation.step}."


def _sample_list(history: RunHistory, samples: Sequence[ScoredImage]) -> str:
    """The samples with what made them."""
    in_full = {image.file for found in history.full_quality for image in found.images}
    grid = history.grid.at_full_quality if any(image.file in in_full for image in samples) else history.grid
    said = f"The first image of each prompt; nothing was selected. Sampling: {sampling_in_words(grid)}."
    rows = [
        f"- [{name}]({SAMPLES}/{name}): {_code(caption(image.cell.prompt))}, seed {image.cell.seed}"
        for name, image in ((_sample_name(image), image) for image in samples)
    ]
    return "\n".join([said, "", *rows])


def _settings(history: RunHistory) -> str:
    found = {key: value for key, value in redacted(history.hparams).items() if _is_public(key, value)}
    rows = [[_code(key), _code(str(value))] for key, value in found.items()]
    return table(["setting", "value"], rows, ["---", "---"]) if rows else "Not recorded."


def _is_public(key: str, value: Any) -> bool:
    """Numbers, and texts that cannot name a place on this machine; the grid is described beside the samples."""
    if key.startswith("monitor.") or str(value) == "None":
        return False
    if not isinstance(value, str):
        return isinstance(value, int | float)
    return key in PROMPTS or (key.startswith("train.") and not any(mark in value for mark in "/\\~"))


def _hashes(folder: Path) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    rows = [[_code(file.relative_to(folder).as_posix()), _code(sha256(file))] for file in files]
    return table(["file", "SHA-256"], rows, ["---", "---"])


def _code(text: str) -> str:
    """Text as code on one line, which also fits into a table."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`"
