"""Base models as one file (`.safetensors`, `.ckpt`) in the original layout of Stable Diffusion 1.x, 2.x, and SDXL."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import first_line
from finetune_monitor.models.families import SD, SDXL, WANTED, Family, tokenizer_of

SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})

LAYOUTS = Path(__file__).parent / "layouts"
"""The settings of networks and scheduler, which a file does not hold, in diffusers' form."""

TOKENIZER = Path(__file__).parents[1] / "shipped/assets/demo/stable-diffusion/tokenizer"
"""CLIP's tokenizer, which all of these models share."""

OPEN_CLIP, OPEN_CLIP_PADDING = ".model.", "!"
"""How the prefix of open_clip's text encoders ends in a file, and the token that pads their prompts."""

UNET, VAE = "model.diffusion_model.", "first_stage_model."

PARTS = {UNET: "UNet", VAE: "VAE"}

FIRST_LAYER, CROSS_ATTENTION = UNET + "input_blocks.0.0.weight", "attn2.to_k.weight"

SD2_WIDTH = 1024
"""Numbers of a text token's embedding in Stable Diffusion 2.x; 1.x has 768."""

PREDICTS_VELOCITY = "v_pred"
"""The name of a tensor that marks such a file of SDXL; for Stable Diffusion 2.x, the layout says it."""

CHANNELS = {4: "", 9: "an inpainting model", 8: "an image-editing model (InstructPix2Pix)", 7: "an upscaler"}
"""What a UNet of Stable Diffusion is, by the channels of its input."""

OTHERS = (
    (
        ("lora_", ".lora.", ".lora_A", ".lora_B", "hada_w1"),
        "a LoRA; name the base model that it belongs to",
    ),
    (("string_to_param", "emb_params"), "a textual-inversion embedding; name it in `embeddings`"),
    (("control_model.", "controlnet_"), "a ControlNet"),
    (("double_blocks.",), "Flux"),
    (("joint_blocks.",), "Stable Diffusion 3"),
    (("conditioner.embedders.0.model.",), "the refiner of SDXL"),
    (("edm_mean",), "Playground v2.5"),
    (("edm_vpred.",), "CosXL"),
)
"""Other kinds of files, by parts of the names of their tensors."""

EXPECTED = f"expected {WANTED}, as one file, with UNet, VAE, and text encoder"

Shapes = Mapping[str, tuple[int, ...]]


def is_single_file(model: str | Path) -> bool:
    """Whether a model is named by a file with weights."""
    path = Path(model).expanduser()
    return path.suffix.lower() in SUFFIXES and path.is_file()


def check_single_file(file: Path, layout: str | None) -> Path:
    """The folder with the settings for a file, after reading what tensors it has.

    Args:
        layout: a name in `LAYOUTS`, or a folder in diffusers layout; None to tell from the file.

    Raises:
        UserError: the file is damaged, holds code, or is another kind of model; or the settings are not there.
    """
    shapes = read_shapes(file)
    refuse_others(file, shapes)
    family = family_in(shapes)
    if layout is not None:
        return layout_folder(layout, family)
    width, known = text_width(shapes), family.layouts
    if width == SD2_WIDTH:
        raise UserError(
            f"{file}: found Stable Diffusion 2.x, whose file does not say whether it predicts noise or velocity; set "
            "layout=sd2 (512 px models) or layout=sd2-v (768 px models)"
        )
    if width not in known:
        widths = " or ".join(map(str, known))
        raise UserError(
            f"{file}: found a UNet that takes text embeddings with {width} numbers, {EXPECTED} ({widths}); name a "
            "folder with its settings in diffusers layout as `layout`"
        )
    if PREDICTS_VELOCITY in shapes:
        raise UserError(
            f"{file}: found {family.name} that predicts velocity, but {known[width]} is for models that "
            "predict noise; name a folder with its settings in diffusers layout as `layout`"
        )
    return LAYOUTS / known[width]


def family_in(shapes: Shapes) -> Family:
    """The family of a file that is not refused, by the names of its text encoders' weights."""
    is_sdxl = any(_has(shapes, start) for starts in SDXL.in_files.values() for start in starts)
    return SDXL if is_sdxl else SD


def text_width(shapes: Shapes) -> int:
    """The width of the text embeddings that a UNet takes; 0 if there is no such layer."""
    return next((shape[-1] for name, shape in shapes.items() if name.endswith(CROSS_ATTENTION)), 0)


def layout_folder(layout: str, family: Family) -> Path:
    """The folder of a layout for a family's model.

    Raises:
        UserError: there is none, or it lacks settings.
    """
    folder = LAYOUTS / layout if (LAYOUTS / layout).is_dir() and "/" not in layout else Path(layout).expanduser()
    networks = ("unet", "vae", *family.text_encoders)
    needed = ("model_index.json", *(f"{name}/config.json" for name in networks))
    missing = [name for name in (*needed, "scheduler/scheduler_config.json") if not (folder / name).is_file()]
    if missing:
        known = ", ".join(sorted(path.name for path in LAYOUTS.iterdir()))
        raise UserError(
            f"layout: {folder} lacks {', '.join(missing)}; expected {known}, or a folder in diffusers layout"
        )
    return folder


def refuse_others(file: Path, shapes: Shapes) -> None:
    """Check that a file holds a text-to-image model of one of the families.

    Raises:
        UserError: names what was found.
    """
    if found := _other_kind(shapes):
        raise UserError(f"{file}: found {found}; {EXPECTED}")
    missing = [part for prefix, part in PARTS.items() if not _has(shapes, prefix)]
    for name, starts in family_in(shapes).in_files.items():
        missing += [name.replace("_", " ")] * (not any(_has(shapes, start) for start in starts))
    if missing:
        raise UserError(f"{file}: lacks its {' and '.join(missing)}; {EXPECTED}")


def _other_kind(shapes: Shapes) -> str:
    """What kind of file this is, if it is not Stable Diffusion; empty if it may be."""
    for marks, kind in OTHERS:
        if any(mark in name for mark in marks for name in shapes):
            return kind
    if FIRST_LAYER in shapes:
        channels = shapes[FIRST_LAYER][1]
        return CHANNELS.get(channels, f"a UNet with {channels} input channels")
    if _has(shapes, "encoder.") and _has(shapes, "decoder."):
        return "a VAE; name it in `vae`"
    if _has(shapes, "down_blocks."):
        return "one network of a pipeline in diffusers layout; name the folder of the pipeline"
    return "" if _has(shapes, UNET) else f"tensors of another kind ({', '.join(list(shapes)[:2]) or 'none'})"


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors in a file; code in a pickle is refused and never run.

    Raises:
        UserError: the file is damaged, or holds code.
    """
    with readable(file):
        if file.suffix.lower() == ".safetensors":
            with safe_open(file, "pt") as content:
                return {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
        found = read_pickle(file)
        return {name: tuple(each.shape) for name, each in found.items() if isinstance(each, torch.Tensor)}


def read_pickle(file: Path) -> dict[str, Any]:
    """The tensors in a pickled checkpoint, mapped from the disk where its format allows that."""
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # a format before torch 1.6 cannot be mapped
        found = torch.load(file, map_location="cpu", weights_only=True)
    while isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise UserError(f"{file}: found a {type(found).__name__}, expected tensors by name")
    return dict(found)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Name a file that cannot be read, and say why."""
    try:
        yield
    except UnpicklingError as error:
        raise UserError(
            f"{file}: refused, because it is damaged, or holds code, which was not run ({first_line(str(error))}); "
            "use the .safetensors file of the same model"
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(repr(error))}); copy it again") from error


def load_single_file(file: Path, folder: Path) -> Any:
    """The pipeline in a file, with the settings in a folder; nothing is downloaded.

    Raises:
        UserError: the weights do not fit the settings.
    """
    import diffusers

    shapes = read_shapes(file)
    family = family_in(shapes)
    with fits(file, folder):
        pipeline = getattr(diffusers, family.pipeline).from_single_file(
            str(file),
            config=str(folder),
            local_files_only=True,
            torch_dtype=torch.float32,
            feature_extractor=None,
            image_encoder=None,
            **{tokenizer_of(name): _tokenizer(folder, name, shapes) for name in family.text_encoders},
            **family.left_out,
        )
        parts = family.networks(pipeline)
        check_complete(parts)
    for part in parts.values():
        copy_from_disk(part)
    return pipeline


def _tokenizer(folder: Path, text_encoder: str, shapes: Shapes) -> Any:
    """The tokenizer in the folder with the settings, or CLIP's, padding as the text encoder was trained."""
    from transformers import CLIPTokenizer

    own = folder / tokenizer_of(text_encoder)
    if own.is_dir():
        return CLIPTokenizer.from_pretrained(own)
    starts = family_in(shapes).in_files[text_encoder]
    is_open_clip = any(start.endswith(OPEN_CLIP) and _has(shapes, start) for start in starts)
    padding: dict[str, Any] = {"pad_token": OPEN_CLIP_PADDING} if is_open_clip else {}
    return CLIPTokenizer.from_pretrained(TOKENIZER, **padding)


@contextmanager
def fits(file: Path, settings: str | Path) -> Iterator[None]:
    """Name a file whose weights do not fit some settings."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{file}: its weights do not fit the settings of {settings} ({first_line(str(error))}); use a file of the "
            "same version, or name a folder with settings that fit as `layout`"
        ) from error


def copy_from_disk(part: torch.nn.Module) -> None:
    """Copy weights that are mapped from a file, so that it may change; and to where vectors lie as in every network."""
    for tensor in (*part.parameters(), *part.buffers()):
        tensor.data = tensor.data.clone()


def check_complete(parts: Mapping[str, torch.nn.Module]) -> None:
    """Check that every weight was in the file.

    Raises:
        ValueError: names some that were not.
    """
    for name, part in parts.items():
        missing = [key for key, value in part.state_dict().items() if value.is_meta]
        if missing:
            raise ValueError(f"the {name} lacks {len(missing)} weights, such as {missing[0]}")
