"""The disk fills up at a checkpoint, an evaluation, an export, or a page; with space, the same command continues."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from finetune_monitor.base.errors import UserError
from finetune_monitor.monitor.weights_keeper import WeightsKeeper
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import kept_weights
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.training import checkpoints, loop, preflight
from finetune_monitor.training import main as training
from finetune_monitor.training import run as run_module
from support import needs

pytestmark = [needs.mounts, pytest.mark.slow]

OFF = "monitor.enabled=false"
MEGABYTES = 24


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> None:
    """Leave no room at all."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def free(disk: Path) -> None:
    (disk / "ballast").unlink()


@pytest.fixture
def train(forked, write_config, disk):
    """A training on the small disk, which is full when a function is called for the n-th time."""
    config = write_config()

    def go(*overrides: str, at: tuple[object, str, int] | None = None, lasts: bool = True) -> tuple[int, str]:
        def action() -> int:
            if at is not None:
                _fill_at(disk, *at, lasts)
            AcceleratorState._reset_state(reset_partial_state=True)
            return training.main(config, [f"output_dir={disk / 'run'}", "monitor.stopping=[]", *overrides])

        child = forked(action)
        status, said = child.ends(60), child.output.read_text()
        assert "Traceback" not in said
        return status, said

    return go


def _fill_at(disk: Path, owner: object, name: str, count: int, lasts: bool) -> None:
    call, calls = getattr(owner, name), []

    def filling(*arguments: object, **named: object) -> object:
        calls.append(name)
        if len(calls) != count:
            return call(*arguments, **named)
        fill(disk)
        try:
            return call(*arguments, **named)
        finally:
            if not lasts:
                free(disk)

    setattr(owner, name, filling)


def _weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/step-{step:06d}/weights.safetensors")


def _steps(folder: Path) -> list[int]:
    return [evaluation.step for evaluation in read_run(folder).evaluations]


def _has_all_images(folder: Path) -> bool:
    return all((folder / str(image.file)).is_file() for each in read_run(folder).evaluations for image in each.images)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_checkpoint_that_does_not_fit(method, train, disk):
    options = [OFF, f"train.method={method}", "train.keep_checkpoints=3"]
    status, said = train(*options, at=(loop.Trainer, "train_step", 4))
    assert status == 1
    assert "run/checkpoints/step-000004: cannot be written (No space left on device); free some space" in said
    assert [path.name for path in (disk / "run/checkpoints").glob("*step-*")] == ["step-000002"]
    free(disk)
    assert train(*options)[0] == 0
    assert sorted(_weights(disk / "run", 6)) == sorted(_weights(disk / "run", 2))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_last_weights_that_do_not_fit(method, train, disk):
    options = [OFF, f"train.method={method}", "train.keep_checkpoints=1"]
    status, said = train(*options, at=(run_module, "export_weights", 1))
    assert status == 1
    assert "run/last: cannot be written (No space left on device); free some space" in said
    free(disk)
    assert train(*options)[0] == 0
    assert (disk / "run/last/finetune_monitor.json").is_file()


def test_a_last_evaluation_that_does_not_fit_is_made_up_by_the_same_command(train, disk):
    options = ["monitor.every=2", "train.max_steps=5", "train.checkpoint_every=5"]
    status, said = train(*options, at=(RunRecord, "write_images", 4))
    assert status == 1
    assert "cannot write the record of step 5" in said
    assert "has no record of step 5; free some disk space, and resume to repeat it" in said
    assert _steps(disk / "run") == [0, 2, 4]
    free(disk)
    assert train(*options)[0] == 0
    assert _steps(disk / "run") == [0, 2, 4, 5]
    assert _has_all_images(disk / "run")
    assert list(kept_weights(disk / "run")) == [2, 4, 5]


def test_an_evaluation_amid_the_run_that_does_not_fit_is_recorded_with_the_next_one(train, disk):
    status, said = train("monitor.every=2", at=(RunRecord, "write_images", 2), lasts=False)
    assert status == 0
    assert "cannot write the record of step 2" in said
    assert "its scores will be recorded with the next evaluation" in said
    assert "has no record" not in said
    history = read_run(disk / "run")
    assert [evaluation.step for evaluation in history.evaluations] == [0, 2, 4, 6]
    assert [image.file is None for image in history.evaluations[1].images] == [True, True]


def test_weights_that_do_not_fit_are_made_up_by_the_same_command(train, disk):
    options = ["monitor.every=2", "train.max_steps=4", "train.checkpoint_every=2", "monitor.keep=all"]
    status, said = train(*options, at=(WeightsKeeper, "keep", 3), lasts=False)
    assert status == 0
    assert "cannot keep the weights" in said
    assert _steps(disk / "run") == [0, 2, 4]
    assert list(kept_weights(disk / "run", ["weights/step-*"])) == [2]
    assert train(*options)[0] == 0
    assert list(kept_weights(disk / "run", ["weights/step-*"])) == [2, 4]
    made_up = load_file(disk / "run/weights/step-000004/pytorch_lora_weights.safetensors")
    last = load_file(disk / "run/last/pytorch_lora_weights.safetensors")
    assert all(torch.equal(made_up[name], last[name]) for name in last)


def test_trackers_on_a_full_disk_end_nothing(train, disk):
    options = ["train.checkpoint_every=100", "monitor.every=2", "monitor.sinks={tensorboard: {}}"]
    status, said = train(*options, at=(loop.Trainer, "train_step", 1))
    assert status == 1  # at the last checkpoint
    assert "run/checkpoints/step-000006: cannot be written" in said


def test_a_new_run_on_a_full_disk_is_told_before_training(train, disk):
    fill(disk)
    status, said = train()
    assert status == 2
    assert "cannot write to it (No space left on device)" in said or "GiB free" in said


def test_a_run_goes_on_where_its_files_have_taken_their_room(train, disk, monkeypatch):
    options = [OFF, "train.method=full", "train.checkpoint_every=1", "train.keep_checkpoints=2"]
    assert train(*options, "train.max_steps=2")[0] == 0
    with (disk / "ballast").open("wb") as file:
        size = (disk / "run/checkpoints/step-000002/weights.safetensors").stat().st_size
        room = 4 * size + (disk / "run/last/unet/diffusion_pytorch_model.safetensors").stat().st_size * 4
        file.write(bytes(_free(disk) - room))
    status, said = train(*options)
    assert status == 0, said
    (disk / "ballast").rename(disk / "other")
    (disk / "run").rename(disk / "elsewhere")
    assert train(*options)[0] == 2  # a new one does not fit beside it


def _free(disk: Path) -> int:
    return preflight.shutil.disk_usage(disk).free


def test_the_error_of_a_library_in_rust_is_that_of_the_disk(disk, tmp_path):
    from finetune_monitor.base.files import staged_folder

    fill(disk)
    with pytest.raises(OSError, match="No space left on device"), staged_folder(disk / "step") as staged:
        checkpoints.save_file({"a": torch.zeros(1 << 20)}, staged / "weights.safetensors")
    with pytest.raises(UserError), staged_folder(tmp_path / "step"):
        raise UserError("not of the disk")
