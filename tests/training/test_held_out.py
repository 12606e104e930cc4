"""Photos that are held out: which, that nobody trains on them, and that runs are judged and resumed by them."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.face_similarity import HELD_OUT
from finetune_monitor.record.history import read_run
from finetune_monitor.sinks.console import print_summary
from finetune_monitor.sinks.tensorboard import event_folder
from finetune_monitor.training.config import DataConfig, load_config
from finetune_monitor.training.photos import ChosenPhotos, choose_photos
from finetune_monitor.training.run import run
from support.manifests import as_of_an_earlier_version


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Five crops of the astronaut's photo, each of its own, with a face in each."""
    face = Image.fromarray(astronaut()).crop((100, 0, 350, 250)).reduce(2)
    (tmp_path / "five").mkdir()
    for index in range(5):
        face.crop((3 * index, 2 * index, 125 - 3 * index, 125 - 2 * index)).save(tmp_path / f"five/{index}.png")
    return tmp_path / "five"


@pytest.fixture
def train(write_config, five, tmp_path):
    """Runs the tiny config on the five photos with overrides, in a folder of its own; returns the folder."""
    path = write_config()

    def go(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        assert run(load_config(path, [f"output_dir={folder}", f"data.instance_images={five}", *overrides])) == 0
        return folder

    return go


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/step-000006/weights.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def data(folder: Path, **settings: object) -> DataConfig:
    return DataConfig(instance_images=folder, instance_prompt="a", **settings)


@pytest.mark.parametrize(
    ("count", "held_out", "training", "kept"),
    [
        (None, None, "01234", ""),
        (2, None, "01", ""),
        (None, 2, "012", "34"),
        (1, 2, "0", "34"),
        (3, 2, "012", "34"),
        (4, 1, "0123", "4"),
    ],
)
def test_the_first_are_trained_on_and_the_last_are_held_out(five, count, held_out, training, kept):
    expected = ChosenPhotos([five / f"{i}.png" for i in training], [five / f"{i}.png" for i in kept])
    assert choose_photos(data(five, instance_count=count, held_out=held_out)) == expected


def test_a_folder_of_further_photos_leaves_all_the_others_to_the_training(five, tmp_path):
    shutil.move(five / "4.png", tmp_path / "further.png")
    (tmp_path / "further").mkdir()
    shutil.move(tmp_path / "further.png", tmp_path / "further/a.png")
    found = choose_photos(data(five, instance_count=3, held_out=str(tmp_path / "further")))
    assert found == ChosenPhotos([five / f"{i}.png" for i in (0, 1, 2)], [tmp_path / "further/a.png"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"held_out": 5}, r"five: found 5 photos, expected 6 \(at least 1 to train on, 5 held out\)"),
        ({"held_out": 2, "instance_count": 4}, r"five: found 5 photos, expected 6 \(4 to train on, 2 held out\)"),
        ({"held_out": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_folders_that_are_too_small_are_named(five, settings, said):
    with pytest.raises(UserError, match=said):
        choose_photos(data(five, **settings))


@pytest.mark.parametrize("inside", [True, False])
def test_a_held_out_photo_that_is_trained_on_is_refused(five, tmp_path, inside):
    folder = five if inside else tmp_path / "other"
    folder.mkdir(exist_ok=True)
    shutil.copy(five / "1.png", folder / "9.png")
    with pytest.raises(UserError, match=r"1 of 1 held-out(?s:.*)9\.png: the same as .*1\.png"):
        choose_photos(data(five, held_out=1 if inside else folder))


@pytest.mark.parametrize("wrong", ["0", "-1", "true", "[1]", "1.5", "''"])
def test_what_is_neither_a_number_nor_a_folder_is_refused(write_config, wrong):
    with pytest.raises(UserError, match=r"data\.held_out: found .*expected a number of photos \(1 or more\), a folder"):
        load_config(write_config(), [f"data.held_out={wrong}"])


def test_the_config_keeps_a_number_and_a_folder(write_config, tmp_path):
    for given, kept in (("2", 2), ("photos/more", Path("photos/more")), ("~/x", Path.home() / "x"), ("null", None)):
        config = load_config(write_config(), [f"data.held_out={given}"])
        assert config.data.held_out == kept
        (tmp_path / "again.yaml").write_text(config.to_yaml())
        assert load_config(tmp_path / "again.yaml") == config


@pytest.fixture
def eight(five) -> Path:
    """Three more."""
    for index in range(5, 8):
        Image.open(five / "0.png").crop((0, 0, 250 - index, 250)).save(five / f"{index}.png")
    return five


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 2),
        ({"instance_count": 6}, 2),
        ({"instance_count": 7}, None),
        ({"held_out": "auto"}, 2),
        ({"held_out": None}, None),
        ({"held_out": 1}, 1),
    ],
)
def test_from_eight_photos_on_two_are_held_out(eight, settings, kept):
    assert data(eight, **settings).held_out == kept


def test_fewer_photos_are_all_trained_on(five, tmp_path):
    assert data(five).held_out is None
    assert data(tmp_path / "missing").held_out is None


def test_the_recorded_config_says_what_auto_was(write_config, eight, tmp_path):
    config = load_config(write_config(), [f"data.instance_images={eight}"])
    assert "held_out: 2" in config.to_yaml()
    assert choose_photos(config.data).held_out == [eight / "6.png", eight / "7.png"]


@pytest.mark.slow
def test_a_run_measures_the_loss_on_the_held_out_photos(train, eight):
    history = read_run(train("run", "monitor.metrics.validation_loss={}"))
    assert [len(each.samples["validation_loss"]) for each in history.evaluations] == [4] * len(history.evaluations)
    held_out = history.weights["validation_loss"]["held_out"]
    assert [photo["sha256"] for photo in held_out] == [sha256(eight / f"{i}.png") for i in (6, 7)]


def test_a_rule_on_the_loss_needs_held_out_photos(write_config, five):
    settings = [
        f"data.instance_images={five}",
        "monitor.metrics.validation_loss={}",
        "monitor.stopping=[{metric: validation_loss}]",
    ]
    with pytest.raises(UserError, match=r"validation_loss needs data\.held_out; give it a value"):
        load_config(write_config(), settings)


@pytest.mark.slow
def test_training_is_that_on_the_other_photos_alone_bit_for_bit(train, five, tmp_path):
    (tmp_path / "three").mkdir()
    for index in range(3):
        shutil.copy(five / f"{index}.png", tmp_path / "three")
    alone = train("alone", "monitor.enabled=false", f"data.instance_images={tmp_path / 'three'}")
    unwatched = train("unwatched", "monitor.enabled=false", "data.held_out=2")
    watched = train("watched", "data.held_out=2")
    every_step = train("every_step", "data.held_out=2", "monitor.every=1", "monitor.sinks={}")
    assert same(alone, unwatched)
    assert same(alone, watched)
    assert same(alone, every_step)
    assert not same(alone, train("all", "monitor.enabled=false"))


@pytest.mark.slow
def test_a_run_records_shows_and_stops_by_the_held_out_photos(train, five, capfd, monkeypatch, tmp_path):
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    rule = f"monitor.stopping=[{{rule: patience, metric: {HELD_OUT}, patience: 9}}]"
    folder = train("run", "data.held_out=2", rule, "monitor.sinks={tensorboard: {}, wandb: {mode: offline}}")
    history = read_run(folder)
    assert history.run["metrics"][HELD_OUT] == {"higher_is_better": True, "bounds": [-1.0, 1.0]}
    described = history.run["weights"]["face_similarity"]
    assert [photo["sha256"] for photo in described["references"]] == [sha256(five / f"{i}.png") for i in range(3)]
    assert [photo["sha256"] for photo in described["held_out"]] == [sha256(five / f"{i}.png") for i in (3, 4)]
    assert history.run["ended"]["best_metric"] == HELD_OUT
    assert all(evaluation.scores[HELD_OUT].missing == 2 for evaluation in history.evaluations)  # no face in the noise
    assert all(math.isnan(image.scores[HELD_OUT]) for image in history.evaluations[0].images)
    assert set(history.ceilings) == {"face_similarity", HELD_OUT}
    assert len(list((folder / "references").glob("*.webp"))) == 5
    [charts] = EventAccumulator(str(event_folder(folder))).Reload().Tensors("custom_scalars__config__")
    assert f"interval/{HELD_OUT}/low".encode() in charts.tensor_proto.string_val[0]
    tables = list(folder.glob("wandb/offline-run-*/files/media/table/*images*.json"))
    assert tables
    assert all(HELD_OUT in json.loads(path.read_text())["columns"] for path in tables)
    capfd.readouterr()
    print_summary(history)
    assert "face similarity held out" in capfd.readouterr().out


@pytest.mark.slow
def test_a_run_without_held_out_photos_describes_what_it_always_did(train):
    run_json = read_run(train("run")).run
    assert run_json["metrics"].keys() == {"face_similarity"}
    assert run_json["weights"]["face_similarity"].keys() == {"recognizer", "references"}


@pytest.mark.slow
def test_a_checkpoint_refuses_other_training_photos(train):
    train("run", "data.held_out=2", "train.max_steps=2", "monitor.enabled=false")
    with pytest.raises(UserError, match=r"data\.held_out: 2 in the checkpoint, 1 in the config"):
        train("run", "data.held_out=1", "monitor.enabled=false")
    with pytest.raises(UserError, match=r"data\.held_out: 2 in the checkpoint, None in the config"):
        train("run", "monitor.enabled=false")


@pytest.mark.slow
def test_a_run_from_before_there_were_held_out_photos_goes_on(train):
    folder = train("run", "train.max_steps=2")
    manifest = folder / "checkpoints/step-000002/manifest.json"
    content = json.loads(manifest.read_text())
    assert content["identity"].pop("data.held_out", None) is None
    manifest.write_text(json.dumps(as_of_an_earlier_version(content)))
    assert same(train("run"), train("whole"))


@pytest.mark.slow
def test_a_record_refuses_other_held_out_photos(train, five, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shutil.move(five / "3.png", tmp_path / "a")
    shutil.move(five / "4.png", tmp_path / "b")
    train("run", f"data.held_out={tmp_path / 'a'}", "train.max_steps=2")
    with pytest.raises(UserError, match=r"weights\.face_similarity\.held_out is .*3\.png.*the config says .*4\.png"):
        train("run", f"data.held_out={tmp_path / 'b'}")


def test_photos_without_a_face_are_named_with_everything_else(train, five, tmp_path):
    for name in ("4.png", "5.png"):
        Image.new("RGB", (300, 300), "gray").save(five / name)
    with pytest.raises(UserError, match=r"no-model(?s:.*)2 of 6 reference photos show no face(?s:.*)5\.png: no face"):
        train("run", "data.held_out=2", f"model={tmp_path / 'no-model'}")


def test_a_rule_cannot_watch_photos_that_are_not_held_out(write_config):
    with pytest.raises(UserError, match=r"monitor\.stopping\.0\.metric: face_similarity_held_out needs data\.held_out"):
        load_config(write_config(), [f"monitor.stopping=[{{metric: {HELD_OUT}}}]"])
    off = "monitor.metrics={face_similarity: null, aesthetic: {}}"
    with pytest.raises(UserError, match=r"found 'face_similarity_held_out', expected one of aesthetic"):
        load_config(write_config(), [f"monitor.stopping=[{{metric: {HELD_OUT}}}]", off, "data.held_out=1"])
