"""`purge` removes every image of a run, wherever it is, and keeps the numbers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finetune_monitor.base.files import sha256
from finetune_monitor.cli import main
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import CONTACT_SHEET, lock
from finetune_monitor.report.sink import ReportPage
from finetune_monitor.sinks.tensorboard import TensorBoardSink, event_folder
from finetune_monitor.sinks.wandb import WandbSink
from support.runs import write_run
from support.scripted import GRID, Scripted, add_lora
from support.sweep_folders import write_sweep

STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"data:image/jpeg;base64", b"WEBPVP8")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A real run with a LoRA, a contact sheet, TensorBoard, an offline W&B run, and a page."""
    from support.tiny import stable_diffusion

    folder = tmp_path_factory.mktemp("purge") / "run"
    pipeline = add_lora(stable_diffusion())
    folder.mkdir()
    Image.new("RGB", (300, 200)).save(folder / CONTACT_SHEET)
    sinks = [TensorBoardSink(), WandbSink("offline"), ReportPage()]
    monitor = FinetuneMonitor(pipeline, GRID, [Scripted([0.1, 0.5, 0.3])], folder, every=1, sinks=sinks, keep="all")
    monitor.start()
    for step in (1, 2):
        monitor.on_step_end(step)
    monitor.close()
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run", symlinks=True)


def files_with_images(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if any(start in path.read_bytes() for start in STARTS)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(event_folder(run)), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert not read.Tags()["images"] or any(read.Images(tag) for tag in read.Tags()["images"])
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.slow
def test_no_image_is_left_and_every_number_is(run, capsys):
    places = {path.relative_to(run).parts[0] for path in files_with_images(run)}
    assert {"images", "page", "tensorboard", "wandb", "best"} <= places  # so that this test can fail
    assert any("wandb/data" in str(path) for path in files_with_images(run))  # and not in the home folder
    before, shown = read_run(run), curves(run)
    history = {path.name: path.read_bytes() for path in (run / "wandb").rglob("*.wandb")}
    [weights] = (run / "best").glob("*_kohya.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    assert main(["purge", str(run), "--yes"]) == 0
    assert files_with_images(run) == []
    assert not (run / "images").exists()
    after = read_run(run)
    assert after.evaluations == before.evaluations
    assert after.run == before.run
    assert curves(run) == shown
    assert "scripted" in shown
    assert {path.name: path.read_bytes() for path in (run / "wandb").rglob("*.wandb")} == history
    left = load_file(weights)
    assert left.keys() == tensors.keys()
    assert all(bool((left[name] == tensors[name]).all()) for name in tensors)
    with safe_open(weights, framework="pt") as opened:
        assert "modelspec.thumbnail" not in opened.metadata()
        assert opened.metadata()["modelspec.architecture"]
    said = capsys.readouterr().out
    assert "kept:      scores, curves, prompts, and weights" in said
    for words in (["show", run], ["compare", run, run, "--step", "0", "1"], ["report", run, "-o", run.parent / "page"]):
        assert main(list(map(str, words))) == 0
    assert files_with_images(run.parent / "page") == []


def test_a_second_purge_finds_nothing(run, capsys):
    assert main(["purge", str(run), "--yes"]) == 0
    digests = {path: sha256(path) for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    capsys.readouterr()
    assert main(["purge", str(run), "--yes"]) == 0
    assert "removed:   0 files" in capsys.readouterr().out
    assert {path: sha256(path) for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == digests


def test_a_thumbnail_much_smaller_than_the_rest_of_its_header_is_removed(tmp_path):
    write_run(tmp_path / "run", {0: 0.2})
    weights = tmp_path / "run/best/run_kohya.safetensors"
    weights.parent.mkdir()
    tensors = {f"layer{index}": torch.full((3,), float(index)) for index in range(400)}
    save_file(tensors, weights, {"modelspec.thumbnail": "data:image/jpeg;base64,AAAA", "modelspec.title": "é"})
    assert main(["purge", str(tmp_path / "run"), "--yes"]) == 0
    with safe_open(weights, framework="pt") as opened:
        assert opened.metadata() == {"modelspec.title": "é"}
        assert all(bool((opened.get_tensor(name) == tensor).all()) for name, tensor in tensors.items())


@pytest.mark.parametrize("header", [b"", b"no JSON", b"[]", b'{"__metadata__": 5}', b"\xff\xfe"])
def test_a_damaged_header_is_named_and_everything_else_is_purged(header, run, capsys):
    [weights] = (run / "best").glob("*_kohya.safetensors")
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    assert main(["purge", str(run), "--yes"]) == 2
    assert f"{weights}: its header is damaged" in capsys.readouterr().err
    assert files_with_images(run) == []


def test_images_behind_a_damaged_record_of_tensorboard_are_left_out(run):
    [events, *_] = sorted(event_folder(run).glob("*tfevents*"))
    content = bytearray(events.read_bytes())
    content[200] ^= 255
    events.write_bytes(content)
    assert events in files_with_images(run)
    assert main(["purge", str(run), "--yes"]) == 0
    assert files_with_images(run) == []


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("yes", 0), ("", 1), ("n", 1), ("why?", 1)])
def test_it_asks_first(answer, status, tmp_path, monkeypatch):
    write_run(tmp_path / "run", {0: 0.2, 10: 0.5})
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert main(["purge", str(tmp_path / "run")]) == status
    assert (tmp_path / "run/images").exists() == (status == 1)


def test_without_a_terminal_it_needs_yes(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "run", {0: 0.2})
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert main(["purge", str(tmp_path / "run")]) == 2
    assert "expected --yes" in capsys.readouterr().err
    assert (tmp_path / "run/images").exists()


def test_nobody_is_asked_about_a_folder_without_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main(["purge", str(tmp_path)]) == 2
    assert "found no run.json" in capsys.readouterr().err


def test_nothing_behind_a_link_is_removed(tmp_path, capsys):
    run, outside = tmp_path / "run", tmp_path / "outside"
    write_run(run, {0: 0.2})
    (outside / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(outside / "images/mine.png")
    (run / "wandb/run-1").mkdir(parents=True)
    (run / "wandb/run-1/files").symlink_to(outside)
    (run / "wandb/data").symlink_to(outside)
    assert main(["purge", str(run), "--yes"]) == 0
    assert (outside / "images/mine.png").exists()
    for name in ("page", "weights/step-000010"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).symlink_to(outside)
        assert main(["purge", str(run), "--yes"]) == 2
        assert "found a link" in capsys.readouterr().err
        (run / name).unlink()


def test_a_run_in_use_and_what_is_no_run_are_refused(tmp_path, capsys):
    write_run(tmp_path / "run", {0: 0.2})
    with lock(tmp_path / "run"):
        assert main(["purge", str(tmp_path / "run"), "--yes"]) == 2
    assert "in use by" in capsys.readouterr().err
    (tmp_path / "photos/images").mkdir(parents=True)
    assert main(["purge", str(tmp_path / "photos"), "--yes"]) == 2
    assert "expected a run directory" in capsys.readouterr().err
    assert (tmp_path / "photos/images").exists()


def test_a_sweep_is_purged_run_by_run(tmp_path):
    sweep = tmp_path / "sweep"
    write_sweep(sweep, lambda *_: 0.5, values=(1, 2), seeds=(0,))
    assert main(["report", str(sweep), "-o", str(sweep / "page")]) == 0
    assert files_with_images(sweep)
    assert main(["purge", str(sweep), "--yes"]) == 0
    assert files_with_images(sweep) == []
    assert json.loads((sweep / "sweep.json").read_text())["trials"]
    assert main(["report", str(sweep), "-o", str(tmp_path / "page")]) == 0
