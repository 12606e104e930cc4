"""A recorded image is made again from the exported weights, and what is not the same is said."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from PIL import Image

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.record.kept_weights import kept_weights
from finetune_monitor.training.config import load_config
from finetune_monitor.training.rerender import Distance, _same_batch, distance, rerender
from finetune_monitor.training.run import run
from support import needs
from support.tiny import tiny_config

SAME = Distance(0, 0.0)

TRAININGS = {
    "lora": ["train.learning_rate=1e-2"],
    "lora_ema_text": ["train.text_encoder=true", "train.ema_decay=0.9", "train.learning_rate=1e-2"],
    "lora_bf16": [
        "train.mixed_precision=bf16",
        "train.lora_alpha=3",
        "train.lora_layers=[attention, convolution]",
        "train.text_encoder=true",
        "train.learning_rate=1e-2",
    ],
    "full_text": ["train.method=full", "train.text_encoder=true", "train.learning_rate=1e-3"],
    "full_bf16": ["train.method=full", "train.mixed_precision=bf16", "train.learning_rate=1e-3"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, photos) -> Callable[[str], Path]:
    """Trains once a kind of training; returns the run directory."""
    found: dict[str, Path] = {}

    def go(name: str) -> Path:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            (folder / "config.yaml").write_text(tiny_config(folder, tiny_model, photos))
            AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
            quiet = ["monitor.sinks={}", "monitor.stopping=[]", "train.checkpoint_every=100"]
            assert run(load_config(folder / "config.yaml", [*quiet, *TRAININGS[name]])) == 0
            AcceleratorState._reset_state(reset_partial_state=True)
            found[name] = folder / "run"
        return found[name]

    return go


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(trained("lora"), tmp_path / "copy"))


def recorded(folder: Path, step: int, cell: str) -> Path:
    return folder / f"images/step-{step:06d}/{cell}.png"


def command(folder: Path, step: int = 6, cell: str = "p00-s1", *more: object) -> int:
    return main(["render", str(folder), "--step", str(step), "--cell", cell, *map(str, more)])


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS)
def test_an_image_made_again_is_the_recorded_one_pixel_for_pixel(trained, training):
    folder = trained(training)
    lora = {step: folder / f"weights/step-{step:06d}" for step in (3, 6)}
    kept = (
        {6: folder / "last"} if training.startswith("full") else lora
    )  # no face was found, so no step may be the best
    assert {step: found.folder for step, found in kept_weights(folder).items()} == kept
    last = rerender(folder, 6, "p00-s1")
    assert (last.distance, last.weights) == (SAME, str(kept[6]))
    assert last.recorded is not None
    with Image.open(recorded(folder, 0, "p00-s1")) as base:
        assert distance(base, last.recorded).share > 0.1  # the weights make the image
    assert np.array_equal(np.asarray(last.recorded), np.asarray(Image.open(recorded(folder, 6, "p00-s1"))))


@pytest.mark.slow
def test_the_base_model_is_what_made_the_images_of_step_0(trained):
    base = rerender(trained("lora"), 0, "p00-s1")
    assert (base.distance, base.weights) == (SAME, "the base model")


@pytest.mark.slow
def test_the_command_says_so_and_writes_the_image(trained, tmp_path, capsys):
    folder = trained("lora")
    assert command(folder, 6, "p00-s1", "-o", tmp_path / "new/again.png") == 0
    out = capsys.readouterr().out
    assert "equal:    yes, pixel for pixel" in out
    assert "image:    " in out
    assert "note:" not in out
    written, original = (Image.open(path) for path in (tmp_path / "new/again.png", recorded(folder, 6, "p00-s1")))
    assert np.array_equal(np.asarray(written), np.asarray(original))


def test_an_image_that_was_changed_differs(copied, capsys):
    path = recorded(copied, 6, "p00-s1")
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, :4, 1] ^= 128
    Image.fromarray(pixels).save(path)
    assert command(copied) == 1
    assert "equal:    no: up to 128 of 255 apart, in 0.098% of the pixels" in capsys.readouterr().out


def test_what_is_not_here_as_in_the_run_is_said_where_they_differ(copied, capsys):
    Image.new("RGB", (64, 64)).save(recorded(copied, 6, "p00-s1"))
    content = json.loads((copied / "run.json").read_text())
    content["versions"]["torch"] = "1.2.3"
    content["device"] = "NVIDIA H200"
    (copied / "run.json").write_text(json.dumps(content))
    assert command(copied) == 1
    out = capsys.readouterr().out
    assert f"recorded with torch 1.2.3, here {version('torch')}" in out
    assert "recorded with NVIDIA H200, here cpu (" in out
    assert out.count("note:") == 2


@pytest.mark.slow
def test_without_a_recorded_image_of_this_size_nothing_is_equal(copied, capsys, tmp_path):
    recorded(copied, 6, "p00-s1").unlink()
    assert command(copied, 6, "p00-s1", "-o", tmp_path / "x.png") == 1
    assert "unknown: the record has no image" in capsys.readouterr().out
    assert (tmp_path / "x.png").exists()
    Image.new("RGB", (32, 64)).save(recorded(copied, 6, "p00-s1"))
    assert command(copied) == 1
    assert "no: the recorded image has 32 x 64 pixels, this one has 64 x 64" in capsys.readouterr().out


def test_weights_that_were_set_aside_are_found_by_their_step(copied, capsys):
    shutil.rmtree(copied / "weights")
    (copied / "last").rename(copied / "best-step-000006")
    assert command(copied) == 0
    assert f"weights:  {copied / 'best-step-000006'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "cell", "said"),
    [
        (4, "p00-s0", r"no weights of step 4, expected 3, 6; monitor\.keep"),
        (6, "p0-s1", r"found 'p0-s1', expected one of 2 cells from p00-s0 to p00-s1 .*did you mean p00-s1\?"),
        (6, "x", r"found 'x', .*the first is p00-s0"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(trained, step, cell, said):
    with pytest.raises(UserError, match=said):
        rerender(trained("lora"), step, cell)


@pytest.mark.parametrize("grid", [None, [], {"prompts": []}, {"steps": 3}, {"size": 3}])
def test_a_damaged_grid_is_named(copied, grid):
    content = json.loads((copied / "run.json").read_text())
    content["grid"] = {**content["grid"], **grid} if isinstance(grid, dict) else grid
    (copied / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run\.json: grid: damaged"):
        rerender(copied, 6, "p00-s0")


@pytest.mark.parametrize("name", ["again.jpg", "run/images/step-000006/p00-s1.png"])
def test_a_name_that_would_lose_pixels_or_a_recorded_image_is_refused(trained, capsys, name):
    folder = trained("lora")
    assert command(folder, 6, "p00-s1", "-o", folder.parent / name) == 2
    assert "expected a name that ends in .png" in (err := capsys.readouterr().err) or "must not change" in err


@pytest.mark.parametrize(
    ("processes", "size", "place", "together"),
    [
        (1, 8, 3, [0, 1, 2, 3, 4, 5, 6]),
        (1, 3, 4, [3, 4, 5]),
        (1, 3, 6, [6]),
        (2, 2, 5, [5]),
        (2, 2, 4, [4, 6]),
        (2, 8, 3, [1, 3, 5]),
        (3, 1, 5, [5]),
    ],
)
def test_a_cell_is_rendered_with_those_that_shared_its_batch(processes, size, place, together):
    cells = PromptGrid(["a"], range(7)).cells
    assert [cell.index for cell in _same_batch(cells, cells[place], processes, size)] == together


class Brightness:
    """A metric that needs nothing."""

    name = "brightness"
    higher_is_better = True
    bounds = (0.0, 255.0)

    def score(self, images, cells) -> dict[str, np.ndarray]:
        return {self.name: np.array([np.asarray(image).mean() for image in images], dtype=np.float64)}


def own_loop(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Two evaluations of a loop of the user's own, the second one better."""
    monitor = FinetuneMonitor(pipeline, PromptGrid(["a cat"], [0, 1], steps=2), [Brightness()], folder, every=1).start()
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias += 0.1
    monitor.on_step_end(1)
    monitor.close()


@pytest.mark.slow
def test_a_run_of_a_loop_of_ones_own_is_made_again_by_what_its_record_names(tiny_model, run_folder):
    own_loop(StableDiffusionPipeline.from_pretrained(tiny_model), run_folder)
    base, best = (rerender(run_folder, step, "p00-s1") for step in (0, 1))
    assert (base.distance, best.distance) == (SAME, SAME)
    assert best.weights == str(run_folder / "weights/step-000001")
    assert base.notes == (f"{run_folder}: has no config.yaml, so the precision is unknown",)


@pytest.mark.slow
def test_a_pipeline_made_in_memory_has_only_the_weights_that_were_exported_whole(tiny_model, run_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.register_to_config(_name_or_path=None)
    own_loop(pipeline, run_folder)
    assert rerender(run_folder, 1, "p00-s0").distance == SAME
    with pytest.raises(UserError, match=r"name_or_path: found null, expected a folder or a hub id; .*in memory"):
        rerender(run_folder, 0, "p00-s0")


def test_a_pipeline_that_diffusers_does_not_know_and_a_config_of_someone_else_are_named(tiny_model, run_folder):
    own_loop(StableDiffusionPipeline.from_pretrained(tiny_model), run_folder)
    (run_folder / "config.yaml").write_text("lr: 3\n")
    assert "is not a config of train.py" in rerender(run_folder, 0, "p00-s0").notes[0]
    content = json.loads((run_folder / "run.json").read_text())
    content["pipeline"]["class"] = "OwnPipeline"
    (run_folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the pipeline is a OwnPipeline, which this version of diffusers lacks"):
        rerender(run_folder, 0, "p00-s0")


def test_weights_that_are_damaged_are_named(copied):
    path = copied / "weights/step-000006/pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"step-000006: cannot load its weights into the model .*restore the folder"):
        rerender(copied, 6, "p00-s0")


@needs.same_noise
def test_a_precision_that_this_machine_would_not_train_in_is_rendered_all_the_same(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("mixed_precision: 'no'", "mixed_precision: fp16"))
    found = rerender(copied, 6, "p00-s0").distance
    assert found is not None
    assert 0 < found.greatest < 128


def test_a_model_that_is_gone_is_named(copied):
    config = copied / "config.yaml"
    lines = ["model: nowhere/at/all" if line.startswith("model:") else line for line in config.read_text().splitlines()]
    config.write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=r"nowhere/at/all: no such folder.*relative to the folder in which the training"
    ):
        rerender(copied, 0, "p00-s0")
    config.write_text("\n".join(lines).replace("nowhere/at/all", "/nowhere/at/all"))
    with pytest.raises(UserError, match="/nowhere/at/all: no such folder") as caught:
        rerender(copied, 0, "p00-s0")
    assert "relative" not in str(caught.value)
