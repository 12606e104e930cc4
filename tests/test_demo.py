"""The demo as a user runs it: one launch, then everything it left is read back by the libraries it is made for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_monitor.metrics.clip_score import ClipScore
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.sinks.tensorboard import event_folder
from finetune_monitor.training.main import main
from support import preloaded
from support.places import ROOT

pytestmark = pytest.mark.slow

STEPS = 70

FEWER = ["data.class_count=8", "data.class_prompt=a photo of a person"]
"""Fewer class images, and one class prompt: the style of the grid's other prompt is lost, which a score must show."""

FIRST = [f"train.max_steps={STEPS}", f"monitor.every={STEPS}", "seed=1", *FEWER]
"""What makes it the demo's first steps: enough to lose that style, and too few to reach the target."""


def options(folder: Path, *overrides: str) -> list[str]:
    return [f"output_dir={folder / 'run'}", f"data.class_images={folder / 'class'}", *overrides]


ALONE = ["--quiet", "--cpu", "--num_processes=1", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
"""With fewer options, Accelerate lists those that are missing."""


def launch(folder: Path, *overrides: str, processes: int = 1) -> subprocess.CompletedProcess:
    launcher = ["torch.distributed.run", "--nproc_per_node", "2"] if processes == 2 else ["accelerate.commands.launch"]
    single = [] if processes == 2 else ALONE
    python = preloaded.python() if processes == 2 else sys.executable  # one start as a user's is enough
    command = [python, "-m", *launcher, *single, "train.py", "--config", "configs/demo.yaml"]
    command += options(folder, *overrides)
    patient = {"WANDB__SERVICE_WAIT": "300"}  # seconds until wandb gives up on its own process, on a busy machine
    environment = {**os.environ, **patient, "ACCELERATE_USE_CPU": "true", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """Folder and outcome of the demo's first steps."""
    folder = tmp_path_factory.mktemp("demo")
    done = launch(folder, *FIRST)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.fixture(scope="module")
def demo(launched) -> tuple[Path, str]:
    """Run directory and console output of the demo's first steps."""
    return launched[0] / "run", launched[1].stdout


@pytest.fixture(scope="module")
def history(demo) -> RunHistory:
    return read_run(demo[0])


def test_similarity_rises_beyond_the_base_model_and_faces_are_found(history):
    floor, last = history.evaluations
    assert [evaluation.step for evaluation in history.evaluations] == [0, STEPS]
    assert last.scores["face_similarity"].low > floor.scores["face_similarity"].high
    assert last.scores["faces_found"].mean > 0.5
    assert history.ceilings["face_similarity"].mean > last.scores["face_similarity"].mean
    assert 0 <= last.scores["aesthetic"].mean <= 10


def test_with_prior_preservation_other_people_stay_who_they_are(history):
    last = history.evaluations[-1]
    assert not {"leakage", "probe_diversity", "copying"} & set(last.alarms)
    assert last.scores["leakage"].mean < 0.7
    assert last.scores["probe_diversity"].mean > 0.8


def test_the_margin_shows_that_a_prompt_is_ignored(demo, history):
    prompts = history.grid.prompts
    metric = ClipScore(str(ROOT / "assets/demo/clip"), prompts=prompts)
    found = []
    for evaluation in (history.evaluations[0], history.evaluations[-1]):
        images = [Image.open(demo[0] / image.file).convert("RGB") for image in evaluation.images]
        margins = metric.score(images, [image.cell for image in evaluation.images])["prompt_margin"]
        found.append([margins[[image.cell.prompt == each for image in evaluation.images]].mean() for each in prompts])
    (_, before), (_, after) = found  # "black and white", which the training forgets
    assert after < -0.05
    assert before > after + 0.05
    assert np.mean(found[0]) > np.mean(found[1]) + 0.05


def test_the_console_says_what_was_found_and_where_to_look(demo):
    folder, out = demo
    assert "ceiling" in out
    assert "demo" in out.lower()
    assert f"tensorboard --logdir {folder}/tensorboard" in out
    assert "% of the time since the last" in out


def test_a_log_is_short_and_holds_no_bars(launched):
    _, done = launched
    assert "\r" not in done.stdout + done.stderr
    assert len(done.stdout + done.stderr) < 12_000
    known = ("training: step ", "class images: image ", "warning: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(known)] == []
    assert done.stdout.startswith("model:     assets/demo/stable-diffusion\nphotos:    6 ")


def test_tensorboard_reads_scores_and_images_at_every_step(demo, history):
    events = EventAccumulator(str(event_folder(demo[0])), {"images": 0, "scalars": 0}).Reload()
    assert [found.step for found in events.Images("grid")] == [0, STEPS]
    for name in ("face_similarity", "aesthetic", "faces_found"):
        written = {found.step: found.value for found in events.Scalars(name)}
        expected = {e.step: e.scores[name].mean for e in history.evaluations if e.scores[name].n}
        assert written == pytest.approx(expected, abs=1e-6)
    assert events.Scalars("train/loss")[-1].step == STEPS


def test_wandb_holds_a_row_for_every_image(demo, history):
    tables = sorted(demo[0].glob("wandb/*/files/media/table/**/*images*.json"))
    rows = [row for path in tables for row in json.loads(path.read_text())["data"]]
    images = sum(len(evaluation.images) for evaluation in history.evaluations)
    assert len({json.dumps(row[:4]) for row in rows}) == images, demo[1]


def test_the_exported_lora_makes_a_recorded_image_again_in_plain_diffusers(demo, history):
    folder, _ = demo
    step = json.loads((folder / "last/finetune_monitor.json").read_text())["step"]
    evaluation = next(e for e in history.evaluations if e.step == step)
    recorded = evaluation.images[1]
    row = next(
        row
        for row in map(json.loads, (folder / "images.jsonl").read_text().splitlines())
        if (row["step"], row["cell"]) == (step, recorded.cell.id)
    )
    pipeline = StableDiffusionPipeline.from_pretrained(ROOT / "assets/demo/stable-diffusion")
    pipeline.text_encoder.to(torch.float32)
    pipeline.load_lora_weights(folder / "last")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    made = pipeline(
        row["prompt"],
        num_inference_steps=row["steps"],
        guidance_scale=row["guidance"],
        generator=torch.Generator().manual_seed(row["seed"]),
    ).images[0]
    difference = np.abs(np.asarray(made).astype(int) - np.asarray(Image.open(folder / recorded.file)).astype(int))
    assert difference.mean() < 1
    assert difference.max() < 16


def test_the_same_command_again_has_nothing_to_do(demo, monkeypatch):
    folder, _ = demo
    before = (folder / "evaluations.jsonl").read_bytes()
    monkeypatch.chdir(ROOT)
    AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
    assert main(Path("configs/demo.yaml"), options(folder.parent, *FIRST)) == 0
    assert (folder / "evaluations.jsonl").read_bytes() == before


def test_two_processes_share_the_work_and_agree_with_one(demo, history, tmp_path):
    done = launch(
        tmp_path,
        "train.max_steps=4",
        "monitor.every=4",
        f"data.class_images={demo[0].parent / 'class'}",
        "monitor.grid.images_per_prompt=3",
        "monitor.metrics.leakage=null",
        "monitor.metrics.diversity=null",
        "monitor.sinks={tensorboard: {}}",
        *FEWER,
        processes=2,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = read_run(tmp_path / "run")
    assert two.run["processes"] == 2
    assert [evaluation.step for evaluation in two.evaluations] == [0, 4]
    one = {image.cell.id: image.scores for image in history.evaluations[0].images}
    assert [image.cell.id for image in two.evaluations[0].images] == [
        f"p0{i}-s{1000 * i + k}" for i in (0, 1) for k in (0, 1, 2)
    ]
    for image in two.evaluations[0].images:
        for column in ("face_similarity", "aesthetic", "prompt_margin"):
            expected = one[image.cell.id][column]
            assert image.scores[column] == pytest.approx(expected, abs=2e-2, nan_ok=True)


def test_without_a_network_the_real_config_ends_in_seconds_and_names_every_file(tmp_path):
    command = [sys.executable, "train.py", "--config", "configs/sd15_lora.yaml", f"output_dir={tmp_path / 'run'}"]
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode != 0
    for named in ("fp16", "photos/ana", "stable-diffusion-v1-5", "vggface2", "recognizer: dlib", "ViT-L-14"):
        assert named in done.stderr
    assert "Traceback" not in done.stderr
