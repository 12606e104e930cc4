"""A run resumes if the photos and the model are the same, wherever they are, and not if they were replaced."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run


@pytest.fixture
def train(write_config, tmp_path, tiny_model, photos):
    """Trains for some steps in one folder, with copies of the photos and of the model."""
    path = write_config()
    shutil.copytree(photos, tmp_path / "ana")
    shutil.copytree(tiny_model, tmp_path / "model")

    def go(steps: int, *overrides: str) -> Path:
        AcceleratorState._reset_state(reset_partial_state=True)
        common = [f"output_dir={tmp_path / 'again'}", f"data.instance_images={tmp_path / 'ana'}"]
        changes = [
            *common,
            f"model={tmp_path / 'model'}",
            f"train.max_steps={steps}",
            "monitor.stopping=[]",
            *overrides,
        ]
        assert run(load_config(path, changes)) == 0
        return tmp_path / "again"

    return go


@pytest.mark.slow
@pytest.mark.parametrize("enabled", ["true", "false"], ids=["monitored", "not monitored"])
def test_the_same_photos_and_model_elsewhere_resume(train, tmp_path, enabled):
    train(4, f"monitor.enabled={enabled}")
    shutil.copytree(tmp_path / "ana", tmp_path / "moved")
    (tmp_path / "moved/notes.txt").write_text("not a photo")
    shutil.copytree(tmp_path / "model", tmp_path / "models/copy")
    (tmp_path / "models/copy/README.md").write_text("not a weight")
    spelled = f"{tmp_path}/./models/../moved"
    folder = train(
        6, f"monitor.enabled={enabled}", f"data.instance_images={spelled}", f"model={tmp_path / 'models/copy'}"
    )
    assert (folder / "checkpoints/step-000006").is_dir()
    if enabled == "true":
        assert [found.step for found in read_run(folder).evaluations] == [0, 3, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize("enabled", ["true", "false"], ids=["monitored", "not monitored"])
@pytest.mark.parametrize("change", ["exchanged", "added", "removed"])
def test_other_photos_are_refused(train, tmp_path, enabled, change):
    train(4, f"monitor.enabled={enabled}")
    photo = sorted((tmp_path / "ana").iterdir())[-1]
    if change == "removed":
        photo.unlink()
    else:
        pixels = np.asarray(Image.open(photo).convert("RGB"))
        target = photo if change == "exchanged" else photo.with_name("zz.png")
        Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(target)
    before = len(list((tmp_path / "ana").iterdir())) - {"exchanged": 0, "added": 1, "removed": -1}[change]
    with pytest.raises(UserError, match=r"data\.photos: '\d+ with the SHA-256 .*' in the checkpoint") as caught:
        train(6, f"monitor.enabled={enabled}")
    if enabled == "true":
        old, new = {"exchanged": (True, True), "added": (False, True), "removed": (True, False)}[change]
        names = [f" with {photo.name}" * old, f" with {'zz.png' if change == 'added' else photo.name}" * new]
        after = before + {"exchanged": 0, "added": 1, "removed": -1}[change]
        said = f"references is {before} files{names[0]}, the config says {after} files{names[1]}"
        assert said in str(caught.value)
        assert not re.search("[0-9a-f]{64}", str(caught.value))


@pytest.mark.slow
def test_another_model_in_the_same_folder_is_refused(train, tmp_path):
    train(4, "monitor.enabled=false")
    weights = next((tmp_path / "model/unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model\.sha256: .* in the checkpoint"):
        train(6, "monitor.enabled=false")
