"""Whole runs of the training on a tiny random model: every method, resume, signals, bad input."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from safetensors.torch import load_file
from skimage.data import astronaut, chelsea
from torch import nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import CONFIG, lock
from finetune_monitor.record.training_log import read_training
from finetune_monitor.training import looking, loop
from finetune_monitor.training.config import load_config, recorded_config
from finetune_monitor.training.run import run
from support import needs
from support.places import DEMO
from support.tiny import stable_diffusion as tiny_pipeline
from support.trainings import started
from support.trainings import train as command

OFF = "monitor.enabled=false"


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/step-{step:06d}/weights.safetensors")


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def write_config(write_config) -> Callable[[], Path]:
    """The tiny config; only a metric looks for faces, and not the crops, which have tests of their own."""

    def write() -> Path:
        path = write_config()
        path.write_text(path.read_text().replace("resolution: 64", "resolution: 64, crop: center"))
        return path

    return write


@pytest.fixture
def train(write_config, tmp_path):
    """Runs the tiny config with overrides, in a folder of its own; returns the folder."""
    path = write_config()

    def go(name: str, *overrides: str, status: int = 0) -> Path:
        folder = tmp_path / name
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        assert run(load_config(path, [f"output_dir={folder}", *overrides])) == status
        return folder

    return go


VARIANTS = {
    "lora": [],
    "all_layers": ["train.lora_layers=[attention, feed_forward, convolution]"],
    "lora_dropout": ["train.lora_dropout=0.3"],
    "text_encoder": ["train.text_encoder=true", "train.text_encoder_learning_rate=1e-5"],
    "full": ["train.method=full", "train.learning_rate=1e-5"],
    "full_text": ["train.method=full", "train.text_encoder=true", "train.gradient_checkpointing=true"],
    "accumulation": ["train.gradient_accumulation=2", "train.batch_size=2"],
    "snr": ["train.snr_gamma=5", "train.lr_schedule=cosine", "train.warmup_steps=2"],
    "ema": ["train.ema_decay=0.9"],
    "bf16": ["train.mixed_precision=bf16"],
    "flip": ["data.random_flip=true"],
    "crop": ["data.random_crop=true", "data.random_flip=true"],
    "uncached": ["train.cache_latents=never", "data.random_crop=true", "data.random_flip=true", "data.workers=0"],
    "prodigy": ["train.optimizer=prodigy", "train.learning_rate=1.0"],
    "prodigy_full": ["train.optimizer=prodigy", "train.learning_rate=1.0", "train.method=full"],
    "workers": [
        "train.cache_latents=never",
        "data.workers=1",
        "train.lora_dropout=0.3",
        "train.gradient_accumulation=2",
    ],
    "compile": ["train.compile=true", "train.ema_decay=0.9", "train.gradient_checkpointing=true"],
}
QUICK = ["lora", "full"]
MUST_NOT_CHANGE = ["train.rank=3", "data.instance_prompt=a cat", "train.method=full", "train.optimizer=adamw8bit"]
MUST_NOT_CHANGE += ["train.cache_latents=always", "data.random_crop=true"]
BY_SPEED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS]


@pytest.mark.slow
@pytest.mark.parametrize("variant", BY_SPEED)
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(train, variant, one_block, monkeypatch):
    options = [OFF, *VARIANTS[variant]]
    if variant == "compile":  # test_unchanged.py generates code; here, the graphs are enough, in a tenth of the time
        options += [f"model={one_block}", "train.lora_layers=[convolution]"]
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    whole = train("whole", *options)
    train("parts", *options, "train.max_steps=2")
    parts = train("parts", *options)
    assert same(weights(whole, 6), weights(parts, 6))
    assert not same(weights(whole, 4), weights(whole, 6))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_the_first_photos_are_used_where_a_count_is_given(train):
    one, all_of_them = (train(f"n{n}", OFF, f"data.instance_count={n}") for n in ("1", "null"))
    assert not same(weights(one, 6), weights(all_of_them, 6))


@pytest.mark.slow
def test_class_images_are_drawn_once_and_used(train, tmp_path):
    options = [OFF, "train.prior_loss_weight=1", f"data.class_images={tmp_path / 'class'}"]
    options += ["data.class_prompt=a photo of a person", "data.class_count=3"]
    first = train("first", *options)
    made = {path.name: path.read_bytes() for path in (tmp_path / "class").glob("class-*.png")}
    assert len(made) == 3
    second = train("second", *options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "class").glob("*")} == {**made, ".lock": b""}
    assert same(weights(first, 6), weights(second, 6))
    without = train("without", OFF)
    assert not same(weights(first, 6), weights(without, 6))


@pytest.mark.slow
def test_a_folder_with_enough_class_images_is_only_read(train, tmp_path):
    folder = tmp_path / "class"
    folder.mkdir()
    Image.new("RGB", (64, 64), "green").save(folder / "photo.png")
    options = ["train.prior_loss_weight=1", f"data.class_images={folder}", "data.class_prompt=a", "data.class_count=1"]
    train("first", OFF, *options)
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


@pytest.mark.slow
def test_the_result_loads_into_a_plain_pipeline(train, tiny_model):
    folder = train("lora", OFF)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.load_lora_weights(folder / "last")
    pipeline("a photo", num_inference_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_fully_trained_pipeline_runs_in_plain_diffusers(train, precision):
    folder = train("full", OFF, "train.method=full", f"train.mixed_precision={precision}")
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "last")
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    pipeline("a photo", num_inference_steps=1)


@pytest.mark.slow
def test_an_averaged_run_exports_the_average(train):
    plain, averaged = train("plain", OFF), train("ema", OFF, "train.ema_decay=0.9")
    assert same(weights(plain, 6), weights(averaged, 6))
    exported = [load_file(folder / "last/pytorch_lora_weights.safetensors") for folder in (plain, averaged)]
    assert not same(*exported)


@pytest.mark.slow
def test_v_prediction_is_read_from_the_model(train, tmp_path):
    tiny_pipeline(prediction_type="v_prediction").save_pretrained(tmp_path / "v")
    velocity, noise = train("v", OFF, f"model={tmp_path / 'v'}"), train("epsilon", OFF)
    assert not same(weights(velocity, 6), weights(noise, 6))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(train, monkeypatch):
    step = loop.Trainer.train_step

    def poisoned(self, number):
        loss = step(self, number)
        return loss * float("nan") if number == 3 else loss

    monkeypatch.setattr(loop.Trainer, "train_step", poisoned)
    folder = train("nan", OFF, status=1)
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-000002"]
    assert not (folder / "last").exists()


def saved(folder: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    found = (folder / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on(train, monkeypatch):
    step = loop.Trainer.train_step

    def interrupted(self, place):
        if place == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, place)

    whole = train("whole", OFF)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "train_step", interrupted)
        folder = train("parts", OFF, status=143)
    assert saved(folder) == [2, 3]  # one of them is due, and the other is that of the step that was not cut short
    assert same(weights(whole, 6), weights(train("parts", OFF), 6))


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_the_readers_too_and_the_same_command_goes_on(train, write_config, tmp_path):
    folder = tmp_path / "run"
    never = ["train.cache_latents=never", "train.gradient_accumulation=3", "data.random_crop=true"]
    with started(tmp_path / "said", command(write_config(), OFF, *never, "train.max_steps=100000")) as training:
        training.until(lambda: saved(folder))
        os.killpg(training.process.pid, signal.SIGINT)  # what a terminal does: the readers get the signal as well
        assert training.ends() == 130
        assert training.said.count("stopping after this step") == 1
        assert "Traceback" not in training.said
    newest = saved(folder)[-1]
    train("run", OFF, *never, "data.workers=0", f"train.max_steps={newest + 2}")
    assert saved(folder)[-1] == newest + 2


def test_a_second_run_in_the_directory_fails_at_once_and_names_the_first(write_config, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with lock(tmp_path / "run/checkpoints"), pytest.raises(UserError, match=f"PID {os.getpid()}"):
        run(load_config(write_config(), [OFF]))


def test_a_gradient_that_is_not_finite_ends_the_run(train, monkeypatch):
    backward = Accelerator.backward

    def exploding(self, loss, **named):
        backward(self, loss * float("inf"), **named)

    monkeypatch.setattr(Accelerator, "backward", exploding)
    folder = train("inf", OFF, status=1)
    assert list((folder / "checkpoints").glob("step-*")) == []


@pytest.mark.slow
def test_a_monitored_run_that_was_cut_short_goes_on(train):
    quiet = ["monitor.sinks={}", "monitor.stopping=[]"]
    whole = train("whole", *quiet)
    train("parts", *quiet, "train.max_steps=4")
    parts = train("parts", *quiet)
    assert same(weights(whole, 6), weights(parts, 6))
    assert [evaluation.step for evaluation in read_run(whole).evaluations] == [0, 3, 6]
    assert [evaluation.step for evaluation in read_run(parts).evaluations] == [0, 3, 4, 6]
    assert [row.step for row in read_training(whole)] == [6]
    assert [row.step for row in read_training(parts)] == [4, 6]
    assert all(row.loss > 0 and row.learning_rate > 0 for row in read_training(parts))


@pytest.mark.slow
def test_going_back_to_an_older_checkpoint_drops_what_came_after(train):
    folder = train("run", "monitor.sinks={}", "monitor.stopping=[]")
    older = folder / "checkpoints/step-000004"
    train("run", "monitor.sinks={}", "monitor.stopping=[]", f"train.resume={older}", "train.max_steps=5")
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == ["step-000004", "step-000005"]
    assert [evaluation.step for evaluation in read_run(folder).evaluations] == [0, 3, 5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train.resume=never"], "train.resume is never"),
        (["monitor.grid.seeds=[5]"], "prompt grid"),
        (["monitor.metrics={face_similarity: null, aesthetic: AESTHETIC}"], "recorded with a different setup"),
    ],
)
def test_a_run_that_cannot_be_gone_on_with_is_refused_and_keeps_everything(train, changes, said):
    folder = train("run", "monitor.sinks={}", "monitor.stopping=[]")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    demo = {"clip": str(DEMO / "clip"), "pretrained": None, "head": str(DEMO / "aesthetic_head.safetensors")}
    changes = [change.replace("AESTHETIC", json.dumps(demo)) for change in changes]
    with pytest.raises(UserError, match=said):
        train("run", "monitor.stopping=[]", *changes)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "already finished at step 6; to continue, raise train.max_steps"),
        (["monitor.stopping=[{rule: target, metric: faces_found, score: 0}]"], "already stopped at step 3: the target"),
    ],
    ids=["by its steps", "by a rule"],
)
def test_a_finished_run_that_is_started_again_says_so(train, caplog, overrides, said):
    train("once", *overrides)
    assert said not in caplog.text
    train("once", *overrides)
    assert caplog.text.count(said) == 1


@pytest.mark.slow
def test_a_finished_run_without_its_checkpoints_is_not_wiped(train):
    folder = train("run", "monitor.sinks={}", "monitor.stopping=[]")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="checkpoints are missing"):
        train("run", "monitor.sinks={}", "monitor.stopping=[]")
    assert len(read_run(folder).evaluations) == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("monitor.grid.sampler=DPMSolver++", "DPMSolver"),
        ("model=OTHER", "found a FluxPipeline, expected a StableDiffusionPipeline"),
    ],
)
def test_what_cannot_be_trained_or_drawn_is_said_at_once(write_config, tmp_path, tiny_model, override, said):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    index = other / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(UserError, match=said):
        run(load_config(write_config(), [OFF, override.replace("OTHER", str(other))]))


@pytest.mark.slow
def test_a_gallery_that_nobody_will_generate_is_said_at_once(write_config, photos, tmp_path):
    settings = ["monitor.metrics.recognized={}", "data.class_prompt=a", f"data.class_images={tmp_path / 'none'}"]
    with pytest.raises(UserError, match=r"recognized\.gallery: found neither a gallery nor class images"):
        run(load_config(write_config(), settings))
    settings[-1] = f"data.class_images={photos}"
    assert run(load_config(write_config(), [*settings, "train.max_steps=1", "monitor.stopping=[]"])) == 0


def test_a_damaged_notice_of_the_model_is_said_before_training_and_not_after_it(write_config, tmp_path, tiny_model):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "finetune_monitor.json").write_text("{")
    with pytest.raises(UserError, match=r"finetune_monitor\.json: damaged"):
        run(load_config(write_config(), [f"model={model}", OFF]))
    assert not list(tmp_path.glob("*/checkpoints/step-*"))


@pytest.mark.slow
def test_changed_settings_that_may_change_are_said(train, caplog):
    train("run", OFF, "train.max_steps=2")
    train("run", OFF, "train.learning_rate=1e-5")
    assert "train.learning_rate: was 0.0001, continuing with 1e-05" in caplog.text


@pytest.mark.slow
def test_another_number_of_processes_on_resume_is_said(train, caplog):
    rule = ("monitor.sinks={}", "monitor.stopping=[]")
    run_dir = train("run", *rule, "train.max_steps=2")
    content = json.loads((run_dir / "run.json").read_text())
    assert "processes: was" not in caplog.text
    (run_dir / "run.json").write_text(json.dumps({**content, "processes": 4}))
    train("run", *rule, "train.max_steps=3")
    assert "processes: was 4, continuing with 1, so a step learns from 1 photo instead of 4" in caplog.text


def test_everything_that_is_missing_is_named_at_once(write_config, tmp_path):
    overrides = [
        f"data.instance_images={tmp_path / 'nowhere'}",
        f"model={tmp_path / 'no-model'}",
        f"monitor.metrics.face_similarity.recognizer={tmp_path / 'no.onnx'}",
    ]
    with pytest.raises(UserError) as caught:
        run(load_config(write_config(), overrides))
    for name in ("nowhere", "no-model", "no.onnx"):
        assert name in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("override", MUST_NOT_CHANGE)
def test_settings_that_must_not_change_are_refused_on_resume(train, write_config, tmp_path, override):
    train("run", OFF, "train.max_steps=2")
    with pytest.raises(UserError, match=override.split("=")[0]):
        run(load_config(write_config(), [f"output_dir={tmp_path / 'run'}", OFF, override]))


def test_no_space_is_said_before_training(write_config, monkeypatch):
    from finetune_monitor.training import preflight

    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GiB free"):
        run(load_config(write_config(), [OFF]))


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        (["monitor.every=1"], 6 + 2),  # a LoRA: all steps
        (["monitor.every=1", "monitor.keep=best"], 2 + 2),
        (["monitor.every=4", "monitor.keep=all"], 2 + 2),  # step 4 and the last one
        (["monitor.every=1", "monitor.keep=last 3"], 4 + 2),
        (["monitor.every=1", "train.method=full"], 2 + 2),
        (["monitor.enabled=false"], 2),
    ],
)
def test_the_space_for_the_weights_that_are_kept_is_counted(write_config, tmp_path, monkeypatch, changes, copies):
    from finetune_monitor.training import preflight

    config = load_config(write_config(), [*changes, "train.optimizer=adamw", "train.keep_checkpoints=1"])
    trained, frozen = 10_000, 1_000
    exported = trained + frozen if config.train.method == "full" else 2 * trained
    needed = 4 * (2 * 3 * trained + copies * exported)
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path, free=free: type("Usage", (), {"free": free}))
        with nullcontext() if fits else pytest.raises(UserError, match=r"keep fewer weights \(monitor.keep is"):
            preflight.check_space(config, trained, frozen)


def test_a_pareto_front_of_a_single_score_is_refused_before_training(write_config):
    with pytest.raises(UserError, match=r"monitor\.keep: found pareto, but besides face_similarity no metric has"):
        run(load_config(write_config(), ["monitor.keep=pareto"]))


@pytest.mark.parametrize("keep", ["some", "last", "last 0", "3"])
def test_a_choice_of_weights_that_there_is_not_is_named(write_config, keep):
    with pytest.raises(UserError, match=r"monitor\.keep: .*"):
        load_config(write_config(), [f"monitor.keep={keep}"])


@needs.no_gpu
def test_half_precision_that_this_machine_cannot_do_is_said(train):
    with pytest.raises(UserError, match="fp16: needs a GPU"):
        train("run", OFF, "train.mixed_precision=fp16")


@needs.no_gpu
def test_an_optimizer_that_this_machine_cannot_run_is_named_beside_everything_else(write_config, tmp_path):
    overrides = ["train.optimizer=adamw8bit", f"model={tmp_path / 'no-model'}"]
    with pytest.raises(UserError, match=r"(?s)no-model.*adamw8bit: .*needs a GPU"):
        run(load_config(write_config(), [OFF, *overrides]))


def test_a_missing_compiler_is_named_before_anything_long(write_config, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UserError, match="needs the compiler no-such-compiler"):
        run(load_config(write_config(), [OFF, "train.compile=true"]))


@pytest.mark.slow
def test_what_is_decided_on_compiling_is_said_recorded_and_kept_on_resume(train, capsys):
    folder = train("run", "train.compile=auto", "train.max_steps=2")
    assert "compiled:  no: " in capsys.readouterr().out
    assert recorded_config(folder / CONFIG)[0].train.compile is False
    train("run", "train.compile=auto", "train.max_steps=3")
    assert "compiled:  no: as the run was begun" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("monitored", [OFF, "monitor.every=2"])
def test_each_photo_is_decoded_once_and_gives_the_same_weights(train, tmp_path, monkeypatch, monitored):
    folder, decoded = tmp_path / "phone", []
    folder.mkdir()
    for angle in (0, 5):
        Image.fromarray(astronaut()).rotate(angle).resize((2000, 1500)).save(folder / f"{angle}.jpg")
    load = JpegImageFile.load_prepare  # called once whenever a file's pixels are decoded
    monkeypatch.setattr(JpegImageFile, "load_prepare", lambda file: decoded.append(file.size) or load(file))
    options = (f"data.instance_images={folder}", "data.instance_count=2", "train.max_steps=2", monitored)
    once = train("once", *options, "train.checkpoint_every=2")
    assert decoded.count((2000, 1500)) == 2
    monkeypatch.setattr(looking, "KEPT", 0)
    again = train("again", *options, "train.checkpoint_every=2")
    assert decoded.count((2000, 1500)) == 2 + 4
    assert same(weights(once, 2), weights(again, 2))


@pytest.mark.slow
def test_a_monitored_run_records_shows_and_ends(train):
    folder = train("run", "monitor.sinks={tensorboard: {}}")
    history = read_run(folder)
    assert [evaluation.step for evaluation in history.evaluations] == [0, 3, 6]
    assert history.run["ended"]["reason"] == StopReason.MAX_STEPS.value
    assert history.evaluations[-1].scores["faces_found"].mean == 0
    assert np.isnan(history.evaluations[-1].scores["face_similarity"].mean)


@pytest.mark.slow
def test_photos_without_a_face_are_taken_where_no_metric_asks_for_one(train, tmp_path):
    (tmp_path / "cats").mkdir()
    for index in range(3):
        Image.fromarray(chelsea()[:, 50 * index : 300 + 50 * index]).save(tmp_path / f"cats/{index}.png")
    clip = f"{{clip: {DEMO / 'clip'}, pretrained: null}}"
    metrics = f"{{face_similarity: null, aesthetic: null, clip_score: {clip}, subject_similarity: {clip}}}"
    options = [f"data.instance_images={tmp_path / 'cats'}", "data.held_out=1", f"monitor.metrics={metrics}"]
    options += ["monitor.grid.prompts=[a photo of sks cat, a red photo of sks cat]", "monitor.sinks={}"]
    folder = train("run", *options, "monitor.stopping=[{metric: subject_similarity}]", "train.max_steps=3")
    history = read_run(folder)
    columns = ["clip_score", "prompt_margin", "subject_similarity", "subject_similarity_held_out"]
    columns += ["worst_prompt_margin"]
    assert sorted(history.main_columns) == columns
    assert sorted(history.evaluations[-1].scores) == columns
    assert all(np.isfinite(history.evaluations[-1].scores[name].mean) for name in columns)
    assert np.isfinite(history.ceilings["subject_similarity"].mean)
    assert history.run["ended"]["best_metric"] == "subject_similarity"


@pytest.mark.slow
def test_a_rule_ends_the_run_with_a_checkpoint_and_the_last_weights(train):
    rule = "monitor.stopping=[{rule: patience, metric: faces_found, patience: 1}]"
    folder = train("run", "monitor.sinks={}", rule, "monitor.every=1", "train.checkpoint_every=100")
    history = read_run(folder)
    assert history.evaluations[-1].step == 1
    assert history.run["ended"]["best_step"] == 0
    assert history.run["ended"]["reason"] == StopReason.PATIENCE.value
    assert (folder / "checkpoints/step-000001").is_dir()
    assert (folder / "last/pytorch_lora_weights.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [["monitor.sinks={}", "monitor.stopping=[]"], [OFF]])
def test_a_finished_run_keeps_its_recorded_config(train, changes, caplog):
    folder = train("run", *changes)
    config = (folder / "config.yaml").read_bytes()
    train("run", *changes, "train.max_steps=4")
    assert (folder / "config.yaml").read_bytes() == config
    assert "already finished at step 6" in caplog.text
    assert "continuing with" not in caplog.text
    if OFF not in changes:
        assert read_run(folder).hparams["train.max_steps"] == 6
