"""What a path holds: images, LoRA files, or a base model; with a base model, LoRA files come first."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from finetune_monitor.scoring.sources import find_sources

IMAGES, WEIGHTS, BOTH, EMPTY = ("a.png",), ("a.safetensors",), ("a.safetensors", "sample/a.png"), ()


def fill(folder: Path, names) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith("png"):
            Image.new("RGB", (8, 8)).save(folder / name)
        else:
            save_file({"a": torch.zeros(1)}, folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "base", "default", "watched", "kind"),
    [
        (IMAGES, None, None, False, "images"),
        (IMAGES, "base", None, False, "images"),
        (IMAGES, None, "base", True, "images"),
        (WEIGHTS, "base", None, False, "weights"),
        (WEIGHTS, None, "base", False, "weights"),
        (BOTH, "base", None, False, "weights"),
        (BOTH, None, None, False, "images"),
        (EMPTY, None, None, True, "images"),
        (EMPTY, "base", None, True, "weights"),
        (IMAGES, "base", None, True, "weights"),
    ],
)
def test_folders(tmp_path, names, base, default, watched, kind):
    folder = fill(tmp_path / "folder", names)
    found = find_sources([folder], base, default, watched)
    assert getattr(found, kind) == (folder,)
    assert found.base == ("base" if kind == "weights" else None)


def test_a_base_model_is_scored_alone(tmp_path, tiny_model):
    shutil.copytree(tiny_model, tmp_path / "model")
    found = find_sources([tmp_path / "model"], None)
    assert (found.images, found.weights, found.base) == ((), (), str(tmp_path / "model"))
