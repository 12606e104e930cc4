"""Trainings from a base model in one file: the same weights as from its folder, and one message for all problems."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.original_layout import original, vae_weights
from support.tiny import stable_diffusion

LORA = "last/pytorch_lora_weights.safetensors"


@pytest.fixture
def file(tmp_path) -> Path:
    save_file(original(stable_diffusion()), tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.fixture
def train(write_config, tmp_path):
    """Runs the tiny config with overrides, in a folder of its own; returns the folder."""
    path = write_config()

    def go(name: str, *overrides: str) -> Path:
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        assert run(load_config(path, [f"output_dir={tmp_path / name}", *overrides])) == 0
        return tmp_path / name

    return go


def same(first: Path, second: Path) -> bool:
    a, b = load_file(first / LORA), load_file(second / LORA)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_file_is_trained_as_its_folder_is_also_after_it_was_moved(train, file, tiny_model, tmp_path):
    off, layout = "monitor.enabled=false", f"layout={tiny_model}"
    expected = train("folder", off)
    assert same(expected, train("file", off, layout, f"model={file}"))
    train("cut", off, layout, f"model={file}", "train.max_steps=2")
    moved = file.rename(tmp_path / "moved.safetensors")
    assert same(expected, train("cut", off, layout, f"model={moved}"))
    save_file(original(stable_diffusion(seed=1)), moved)
    with pytest.raises(UserError, match=r"model\.sha256: '\w+' in the checkpoint"):
        train("cut", off, layout, f"model={moved}")


@pytest.mark.slow
def test_a_run_from_a_file_with_its_parts_is_recorded_and_rendered_again(train, file, tiny_model, tmp_path):
    save_file(vae_weights(stable_diffusion(seed=1).vae), tmp_path / "vae.safetensors")
    save_file({"emb_params": torch.full((2, 16), 0.25)}, tmp_path / "look.safetensors")
    parts = [
        f"layout={tiny_model}",
        f"vae={tmp_path / 'vae.safetensors'}",
        f"embeddings=[{tmp_path / 'look.safetensors'}]",
    ]
    folder = train("parts", f"model={file}", *parts, "data.instance_prompt=a photo of sks person look")
    assert read_run(folder).run["pipeline"]["name_or_path"] == str(file)
    assert len(read_run(folder).run["pipeline"]["sha256"]) == 64
    image = tmp_path / "again.png"
    assert main(["render", str(folder), "--step", "6", "--cell", "p00-s0", "-o", str(image)]) == 0
    assert image.exists()


def test_all_problems_of_model_and_photos_are_in_one_message(write_config, file, tmp_path, photos):
    (tmp_path / "10_sks person").mkdir()
    wrong = [
        f"model={file}",
        "layout=sd3",
        f"vae={file.parent / 'gone.safetensors'}",
        f"embeddings=[{tmp_path / 'gone.pt'}]",
    ]
    with pytest.raises(UserError, match="the run cannot start:") as raised:
        run(load_config(write_config(), [*wrong, f"data.instance_images={tmp_path / '10_sks person'}"]))
    said = str(raised.value)
    assert all(part in said for part in ("layout: sd3 lacks", "gone.safetensors", "gone.pt: no such file", "no photos"))
