"""Find pipelines and networks in a folder, the Hugging Face cache, or the hub, or fail within seconds."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import user_path
from finetune_monitor.models.weights import probe

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_UNUSED_COMPONENTS = frozenset({"safety_checker"})
"""Components that many models list but that are never loaded here: they turn images black."""

_COMPONENT_FILES = (
    ("Scheduler", ("scheduler_config.json",)),
    ("Tokenizer", ("tokenizer_config.json",)),
    ("TokenizerFast", ("tokenizer_config.json",)),
    ("FeatureExtractor", ("preprocessor_config.json",)),
    ("ImageProcessor", ("preprocessor_config.json",)),
)
"""The files that components other than networks need, by the end of their class name."""


_NETWORK_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")

HALF = "fp16"
"""The variant of weights that many models have only."""

TRANSFORMERS_WEIGHTS = "model.safetensors"
"""The file in which transformers stores a network's weights; pickled weights are not read."""


@dataclass(frozen=True)
class Layout:
    """How a kind of model is stored in a folder.

    name: for messages.
    marker: the file used to find the model in the Hugging Face cache.
    missing: returns the names of the files that `from_pretrained` needs and that are missing.
    single: what the user can do with a single file.
    """

    name: str
    marker: str
    missing: Callable[[Path], list[str]]
    single: str


def is_hub_id(name: str) -> bool:
    """Whether a model's name is its id on the hub, and not a folder on this machine."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).expanduser().exists()


def resolve_hub_model(model: str | Path, revision: str | None = None, variant: str | None = None) -> str | Path:
    """The argument for a pipeline's `from_pretrained`: a folder in diffusers layout or a hub id.

    A complete folder, or a model that is completely in the Hugging Face cache, is returned as a folder and needs no
    network access. Otherwise the id is returned, if the hub confirms that it has the model. Honors `HF_ENDPOINT`,
    `HF_HUB_OFFLINE`, and `HF_HOME`.

    Args:
        revision: of the model on the hub: a branch, a tag, or a commit.
        variant: of the files with weights, such as fp16; None for any that can be loaded.

    Raises:
        UserError: within seconds, if the folder is incomplete, or the model is neither cached nor on a reachable hub.
    """
    found = _resolve(model, PIPELINE, revision)
    if variant is not None and isinstance(found, Path) and not any(found.glob(f"*/*.{variant}.safetensors")):
        raise UserError(f"{model}: found no weights with variant {variant!r} (*.{variant}.safetensors); leave it out")
    return found


def resolve_hub_vae(model: str | Path) -> str | Path:
    """The argument for `AutoencoderKL.from_pretrained`: a folder, or a hub id.

    Raises:
        UserError: as for `resolve_hub_model`.
    """
    return _resolve(model, AUTOENCODER)


def variant_of(folder: Path) -> str | None:
    """The variant that a pipeline's weights must be loaded with: fp16 if some network has only those."""
    return next(filter(None, map(variant_of_network, (each for each in folder.iterdir() if each.is_dir()))), None)


def variant_of_network(folder: Path) -> str | None:
    """The variant of the weights in a network's folder: fp16 if there are no others."""
    has_half = any(folder.glob(f"*.{HALF}.safetensors"))
    has_plain = any((folder / f"{stem}.safetensors").is_file() for stem in _NETWORK_WEIGHTS)
    return HALF if has_half and not has_plain else None


def resolve_hub_network(model: str | Path) -> str | Path:
    """The argument for `from_pretrained` of a vision network in transformers layout."""
    return _resolve(model, NETWORK)


def _resolve(model: str | Path, layout: Layout, revision: str | None = None) -> str | Path:
    folder = user_path(model)
    if folder.exists():
        return _complete_folder(folder, layout)
    name = str(model)
    if not _HUB_ID.fullmatch(name):
        raise UserError(f"{name}: no such folder; expected a folder in {layout.name} or a hub id like owner/name")
    snapshot = _cached_folder(name, layout.marker, revision)
    missing = layout.missing(snapshot) if snapshot else []
    if snapshot is not None and not missing:
        return snapshot
    problem = hub_problem(name, revision)
    if problem:
        raise UserError(hub_by_hand(name, problem, missing))
    return name


def _complete_folder(folder: Path, layout: Layout) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: found a single file, expected a folder in {layout.name}; {layout.single}")
    missing = layout.missing(folder)
    if missing:
        raise UserError(f"{folder}: not a complete model in {layout.name}; missing or damaged: {', '.join(missing)}")
    return folder


def _missing_parts(folder: Path) -> list[str]:
    """The names of the files that `from_pretrained` needs and that are missing."""
    components = _read_json(folder / "model_index.json")
    if components is None:
        return ["model_index.json"]
    missing = []
    for name, entry in components.items():
        if isinstance(entry, list) and entry and entry[-1] and name not in _UNUSED_COMPONENTS:
            missing += [f"{name}/{file}" for file in _missing_in_component(folder / name, str(entry[-1]))]
    return missing


def _missing_in_network(folder: Path) -> list[str]:
    """The names of the missing files of a network, including the settings of its image processor."""
    names = ("config.json", "preprocessor_config.json", TRANSFORMERS_WEIGHTS)
    return [name for name in names if not (folder / name).is_file()]


def _missing_in_autoencoder(folder: Path) -> list[str]:
    """The names of the missing files of a VAE."""
    return _missing_in_component(folder, "AutoencoderKL")


PIPELINE = Layout(
    "diffusers layout",
    "model_index.json",
    _missing_parts,
    "only a training takes a file, so convert it once with StableDiffusionPipeline"
    ".from_single_file(FILE).save_pretrained(FOLDER)",
)

AUTOENCODER = Layout(
    "diffusers layout",
    "config.json",
    _missing_in_autoencoder,
    "name a .safetensors file, or its folder",
)

NETWORK = Layout("transformers layout", "config.json", _missing_in_network, "name the folder that contains it")


def _missing_in_component(folder: Path, class_name: str) -> list[str]:
    for ending, files in _COMPONENT_FILES:
        if class_name.endswith(ending):
            return [file for file in files if not (folder / file).is_file()]
    config = [] if (folder / "config.json").is_file() else ["config.json"]
    return config + _missing_weights(folder)


def _missing_weights(folder: Path) -> list[str]:
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        content = _read_json(index)
        if content is None:
            return [index.name]
        return sorted(file for file in set(content["weight_map"].values()) if not (folder / file).is_file())
    endings = ("safetensors", f"{HALF}.safetensors")
    if any((folder / f"{stem}.{ending}").is_file() for stem in _NETWORK_WEIGHTS for ending in endings):
        return []
    return ["weights as *.safetensors (pickled *.bin are not read)"]


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _cached_folder(repository: str, filename: str, revision: str | None = None) -> Path | None:
    """The snapshot folder in the Hugging Face cache that contains a file."""
    file = cached_file(repository, filename, revision)
    return None if file is None else file.parent


def cached_file(repository: str, filename: str, revision: str | None = None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def hub_problem(repository: str, revision: str | None = None) -> str | None:
    """Why a repository, or a revision of it, cannot be downloaded from the hub; None if it can."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    token = get_token()
    address = f"{constants.ENDPOINT}/api/models/{repository}"
    if revision is not None:
        address += f"/revision/{quote(revision, safe='')}"
    answer = probe(address, {"Authorization": f"Bearer {token}"} if token else None, "GET")
    if answer in (401, 403, 404):
        what = "model" if revision is None else f"model with revision {revision!r}"
        return (
            f"{constants.ENDPOINT} has no such {what}, or it is private: check the name or log in with `hf auth login`"
        )
    if isinstance(answer, str) or answer >= 500:
        return f"{constants.ENDPOINT}: {answer}"
    return None


def hub_by_hand(repository: str, problem: str, missing: Sequence[str] = ()) -> str:
    """Instructions for downloading a model from the hub manually.

    Args:
        missing: files that are missing from an incomplete copy in the cache.
    """
    from huggingface_hub import constants

    lacking = f", where {', '.join(missing)} is missing" if missing else ""
    return "\n".join(
        [
            f"{repository}: the model is required but not available ({problem})",
            f"  looked in: {constants.HF_HUB_CACHE}{lacking}",
            f"  on a machine with network access: hf download {repository} --local-dir FOLDER",
            "  then use that folder instead of the id",
        ]
    )
