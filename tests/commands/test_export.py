"""The weights of any kept step leave the run in the format that a tool reads, and nothing is overwritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from finetune_monitor.cli import main
from finetune_monitor.record.kept_weights import LORA_FILE
from support.scripted import add_lora, trained
from support.tiny import stable_diffusion


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> Path:
    """A run with the LoRA of steps 1 to 3; the second is the best."""
    folder = tmp_path_factory.mktemp("lora") / "ana"
    trained(add_lora(stable_diffusion()), folder, [0.0, 0.4, 0.9, 0.2])
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run with complete pipelines."""
    folder = tmp_path_factory.mktemp("whole") / "ana"
    trained(stable_diffusion(), folder, [0.0, 0.2, 0.4])
    return folder


def export(folder: Path, target: Path, *more: object) -> int:
    return main(["export", str(folder), "--to", str(target), *map(str, more)])


def image(pipeline: StableDiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(0)
    return pipeline("a photo", num_inference_steps=2, generator=seeded, output_type="np", height=32, width=32).images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "reader"),
    [
        ("sub/new", (), "diffusers"),
        ("ana.safetensors", (), "ComfyUI"),
        (LORA_FILE, (), "diffusers"),
        ("ana.safetensors", ("--format", "diffusers"), "diffusers"),
        ("ana.safetensors", ("--format", "kohya"), "ComfyUI"),
        ("ana.SAFETENSORS", (), "ComfyUI"),
    ],
)
def test_either_format_renders_the_image_of_the_step(lora, tmp_path, capsys, name, more, reader):
    assert export(lora, tmp_path / name, "--step", 1, *more) == 0
    assert f"(for {reader}" in capsys.readouterr().out
    plain = stable_diffusion()
    untrained = image(plain)
    plain.load_lora_weights(str(tmp_path / name))
    source = stable_diffusion()
    source.load_lora_weights(lora / "weights/step-000001")
    assert np.abs(image(plain) - image(source)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3


@pytest.mark.parametrize(
    ("step", "found"), [((), 2), (("--step", "best"), 2), (("--step", "last"), 3), (("--step", 1), 1)]
)
def test_a_step_is_named_by_its_number_or_as_the_best_or_the_last(lora, tmp_path, step, found):
    assert export(lora, tmp_path / "new", *step) == 0
    assert json.loads((tmp_path / "new/finetune_monitor.json").read_text())["step"] == found


@pytest.mark.slow
def test_a_complete_pipeline_loads_from_the_new_folder(whole, tmp_path, capsys):
    assert export(whole, tmp_path / "new", "--step", 2) == 0
    assert "DiffusionPipeline.from_pretrained" in capsys.readouterr().out
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "new").vae.decoder.conv_out.bias[0].item() == 2


def refused(capsys, *arguments: object) -> str:
    assert export(*arguments) == 2
    return capsys.readouterr().err


def test_what_cannot_be_written_is_said_and_nothing_is_lost(lora, whole, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.safetensors").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    said = {
        (lora, tmp_path / "there"): "there: is a folder that exists; name a new file or folder in it, such as",
        (
            lora,
            tmp_path / "mine.safetensors",
        ): "mine.safetensors: exists, and would be overwritten; choose another name",
        (lora, lora / "weights/mine"): "is in the run directory, where the run may delete it",
        (lora, tmp_path / "new", "--format", "kohya"): "found a folder for kohya's format, expected a file; add .safe",
        (lora, tmp_path / "new.CKPT"): "a kind of file that is not written, expected a file *.safetensors or a folder",
        (whole, tmp_path / "new.bin"): "a kind of file that is not written, expected a file *.safetensors or a folder",
        (lora, tmp_path / "new", "--step", 7): "has no weights of step 7, expected 1, 2, 3; monitor.keep decides",
        (lora, tmp_path / "new", "--step", 0): "step 0 is the base model, of which a run has no copy",
        (whole, tmp_path / "new.safetensors"): "is a complete pipeline, not a LoRA; expected --format diffusers and a",
        (whole, tmp_path / "new", "--format", "kohya"): "is a complete pipeline, not a LoRA",
        (tmp_path, tmp_path / "new"): "found no run.json, expected a run directory",
        (lora, tmp_path / "mine.safetensors/new"): "cannot write it (",
        (lora, Path("/proc/new")): "/proc/new: cannot write it (",
    }
    for arguments, words in said.items():
        assert words in refused(capsys, *arguments)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine.safetensors").read_text() == "mine"


@pytest.mark.slow
def test_a_run_without_a_best_step_or_without_weights_says_so(tmp_path, run_folder, capsys):
    trained(add_lora(stable_diffusion()), run_folder, [0.9, 0.1])
    assert "no step is better than the base model by scripted; choose one with" in refused(
        capsys, run_folder, tmp_path / "x"
    )
    shutil.rmtree(run_folder / "weights")
    assert "run: holds no weights, expected a folder in weights, best, or last; training" in refused(
        capsys, run_folder, tmp_path / "x", "--step", "last"
    )


def test_weights_that_were_deleted_by_hand_are_found_in_best(lora, tmp_path):
    copy = Path(shutil.copytree(lora, tmp_path / "copy"))
    shutil.rmtree(copy / "weights")
    assert export(copy, tmp_path / "new") == 0
