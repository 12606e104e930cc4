"""Whole models from outside: diffusers pipelines and open_clip models, from a folder, a cache or the hub."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_monitor.errors import UserError
from finetune_monitor.files import sha256
from finetune_monitor.weights import probe

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_UNUSED_COMPONENTS = frozenset({"safety_checker"})
"""Listed by many models, never loaded here: it blackens images."""

_COMPONENT_FILES = (
    ("Scheduler", ("scheduler_config.json",)),
    ("Tokenizer", ("tokenizer_config.json",)),
    ("TokenizerFast", ("tokenizer_config.json",)),
    ("FeatureExtractor", ("preprocessor_config.json",)),
    ("ImageProcessor", ("preprocessor_config.json",)),
)
"""What a component that is no network needs, by the end of its class name."""

_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names under which the hub holds open_clip's weights; the first is preferred, as open_clip does."""

_NETWORK_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")


def resolve_hub_model(model: str | Path) -> str | Path:
    """What to hand to `from_pretrained` for a folder in diffusers layout or a hub id.

    A complete folder, or a model that lies completely in the Hugging Face cache, is returned as a folder and needs no
    network; else the id, when the hub answers that it has the model. Honours `HF_ENDPOINT`, `HF_HUB_OFFLINE` and
    `HF_HOME`.

    Raises:
        UserError: in seconds, when the folder is incomplete or the model is neither cached nor on a reachable hub.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        return _complete_folder(folder)
    name = str(model)
    if not _HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such folder; expected a folder in diffusers layout or a hub id like owner/name")
    snapshot = _cached_folder(name, "model_index.json")
    if snapshot is not None and not _missing_parts(snapshot):
        return snapshot
    problem = _hub_problem(name)
    if problem:
        raise UserError(_hub_by_hand(name, problem, snapshot))
    return name


def _complete_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: found a single file, expected a folder in diffusers layout; convert it once with "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    missing = _missing_parts(folder)
    if missing:
        raise UserError(f"{folder}: not a complete model in diffusers layout; missing or damaged: {', '.join(missing)}")
    return folder


def _missing_parts(folder: Path) -> list[str]:
    """Names of the files that `from_pretrained` would look for in vain."""
    components = _read_json(folder / "model_index.json")
    if components is None:
        return ["model_index.json"]
    missing = []
    for name, entry in components.items():
        if isinstance(entry, list) and entry and entry[-1] and name not in _UNUSED_COMPONENTS:
            missing += [f"{name}/{file}" for file in _missing_in_component(folder / name, str(entry[-1]))]
    return missing


def _missing_in_component(folder: Path, class_name: str) -> list[str]:
    for ending, files in _COMPONENT_FILES:
        if class_name.endswith(ending):
            return [file for file in files if not (folder / file).is_file()]
    config = [] if (folder / "config.json").is_file() else ["config.json"]
    return config + _missing_weights(folder)


def _missing_weights(folder: Path) -> list[str]:
    for index in sorted(folder.glob("*.safetensors.index.json")):
        content = _read_json(index)
        if content is None:
            return [index.name]
        return sorted(file for file in set(content["weight_map"].values()) if not (folder / file).is_file())
    if any((folder / f"{stem}.safetensors").is_file() for stem in _NETWORK_WEIGHTS):
        return []
    return ["weights as *.safetensors (pickled *.bin are not read)"]


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _cached_folder(repository: str, filename: str) -> Path | None:
    """The snapshot folder of the Hugging Face cache that holds a file."""
    file = _cached_file(repository, filename)
    return None if file is None else file.parent


def _cached_file(repository: str, filename: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, filename)
    return Path(found) if isinstance(found, str) else None


def _hub_problem(repository: str) -> str | None:
    """Why a repository cannot be downloaded from the hub; None where it can."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    token = get_token()
    address = f"{constants.ENDPOINT}/api/models/{repository}"
    answer = probe(address, {"Authorization": f"Bearer {token}"} if token else None, "GET")
    if answer in (401, 403, 404):
        return (
            f"{constants.ENDPOINT} has no such model, or it is private: check the name, or log in with `hf auth login`"
        )
    if isinstance(answer, str) or answer >= 500:
        return f"{constants.ENDPOINT}: {answer}"
    return None


def _hub_by_hand(repository: str, problem: str, snapshot: Path | None) -> str:
    from huggingface_hub import constants

    lacking = f", where {', '.join(_missing_parts(snapshot))} is missing" if snapshot else ""
    return "\n".join(
        [
            f"{repository}: the model is needed and cannot be had ({problem})",
            f"  looked in: {constants.HF_HUB_CACHE}{lacking}",
            f"  on a machine with a network: hf download {repository} --local-dir FOLDER",
            "  then name that folder in place of the id",
        ]
    )


@dataclass(frozen=True)
class ClipSource:
    """A CLIP model that is on this machine.

    id: `MODEL/PRETRAINED`, or the folder.
    tag: name of its weights in open_clip; None for a folder.
    file: its weights.
    arguments: for `open_clip.create_model_and_transforms`; loading needs no network.
    """

    id: str
    tag: str | None
    file: Path
    arguments: dict[str, Any]

    @cached_property
    def sha256(self) -> str:
        """Of the weights, 1.7 GB of ViT-L/14."""
        return sha256(self.file)


def resolve_clip(clip: str, pretrained: str | None) -> ClipSource:
    """Find, or download, a CLIP model: a name and weights tag of open_clip, or a folder.

    The folder holds open_clip_config.json and open_clip_model.safetensors, as `hf download` gives them; `pretrained`
    is not looked at then. The activation must fit the weights: OpenAI's were trained with QuickGELU, and in a model
    without it the embeddings come out wrong and nothing fails, so that such a pair is an error here.

    Raises:
        UserError: unknown name or tag, the wrong activation, an incomplete folder, or weights out of reach.
    """
    import open_clip

    if clip not in open_clip.list_models():
        return _clip_folder(clip, open_clip.list_models())
    _check_tag(clip, pretrained)
    config = open_clip.get_pretrained_cfg(clip, pretrained)
    file = _clip_file(clip, config)
    preprocessing = {f"image_{key}": config[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    arguments = {"model_name": clip, "pretrained": str(file), **preprocessing}
    return ClipSource(f"{clip}/{pretrained}", pretrained, file, arguments)


def _clip_folder(clip: str, known: list[str]) -> ClipSource:
    folder = Path(clip).expanduser()
    if not folder.is_dir():
        nearest = difflib.get_close_matches(clip, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"clip: found {clip!r}, expected a model name of open_clip or a folder{hint}")
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: not a CLIP model in open_clip's layout; missing: {', '.join(missing)}")
    return ClipSource(str(folder), None, folder / names[1], {"model_name": f"local-dir:{folder}"})


def _check_tag(clip: str, tag: str | None) -> None:
    import open_clip
    from open_clip.pretrained import list_pretrained_tags_by_model

    plain = clip.removesuffix("-quickgelu")
    twin = f"{clip}-quickgelu" if plain == clip else plain
    twin_tags = list_pretrained_tags_by_model(twin)
    tags = list_pretrained_tags_by_model(clip)
    if tag not in tags:
        hint = f"; {tag} belongs to clip: {twin}" if tag in twin_tags else ""
        raise UserError(f"pretrained: found {tag!r}, expected for {clip} one of {', '.join(tags) or 'none'}{hint}")
    needs = bool(open_clip.get_pretrained_cfg(clip, tag).get("quick_gelu"))
    if needs and not (open_clip.get_model_config(clip) or {}).get("quick_gelu"):
        raise UserError(f"clip: the weights {tag} need QuickGELU, which {clip} lacks; write {twin}")


def _clip_file(clip: str, config: Mapping[str, Any]) -> Path:
    from open_clip.pretrained import download_pretrained

    repository, _, filename = config["hf_hub"].rpartition("/")
    names = (filename[:-4] + ".safetensors", filename) if filename else _CLIP_WEIGHTS
    for name in names:
        cached = _cached_file(repository, name)
        if cached is not None:
            return cached
    problem = _hub_problem(repository)
    if problem:
        raise UserError(f"clip {clip}: weights missing\n{_hub_by_hand(repository, problem, None)}")
    try:
        return Path(download_pretrained(config))
    except (OSError, RuntimeError) as error:
        raise UserError(_hub_by_hand(repository, f"the download failed: {error}", None)) from error
