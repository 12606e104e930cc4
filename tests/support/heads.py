"""Aesthetic heads for tests: the public ones beside the checkout, and small random ones."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from finetune_monitor.metrics.aesthetic_head import AestheticHead
from support import needs
from support.places import SHARED

DATA = SHARED / "aesthetic"
needs_data = needs.shared("aesthetic")
METADATA = {"format": "finetune_monitor.aesthetic_head", "version": "1", "activation": "relu", "notice": "demo scores"}
WIDTH = 8
"""Of the embeddings of `write_clip`."""


def public(name: str) -> Path:
    return next(DATA.rglob(f"{name}.pth"))


def write_head(path: Path, widths=(WIDTH, 5, 1), metadata: dict[str, str] | None = METADATA) -> Path:
    torch.manual_seed(1)
    state = AestheticHead(widths).state_dict()
    state[f"layers.{len(widths) - 2}.bias"] += 5
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path, metadata)
    return path


def write_clip(folder: Path, **model: bool) -> Path:
    """A tiny CLIP with random weights in open_clip's layout, with a normalization of its own."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text, **model},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return folder
