"""Everything that is read from files of others, and what comes out of it when the files are damaged."""

import json
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.metrics.aesthetic_head import clip_of, read_head, scale_of
from finetune_monitor.metrics.thresholds import read_thresholds
from finetune_monitor.models.recognizers import load_recognizer
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import NOTE, kept_weights
from finetune_monitor.record.run_directory import CONFIG, EVALUATIONS, IMAGES, PHOTOS, RUN, TRAINING
from finetune_monitor.record.sweep_directory import STATE, read_state
from finetune_monitor.record.training_log import read_training
from finetune_monitor.report.page import write_page
from finetune_monitor.report.photo_survey import read_survey
from finetune_monitor.sinks.console import print_summary
from finetune_monitor.studies.aesthetic_head.ratings import read_ratings
from finetune_monitor.studies.agreement.rating_files import read_rating_files
from finetune_monitor.studies.labeling.images import open_gallery
from finetune_monitor.studies.labeling.ratings import Rating, to_csv
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import PLAN, TASKS
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.training import checkpoints
from finetune_monitor.training.config import TrainConfig, load_config, recorded_config
from finetune_monitor.training.loop import make_optimizer
from finetune_monitor.training.manifest import MANIFEST
from finetune_monitor.training.trainable import make_trainable
from support import tiny
from support.heads import write_head
from support.label_plans import write_small_plan
from support.mutations import of_bytes, of_json, of_text
from support.places import ROOT
from support.recognizers import save_onnx
from support.runs import write_run
from support.sweep_folders import write_sweep

SECONDS = 20
"""The longest that reading one small file may take on a busy machine."""

Mutations = Callable[[bytes, int, int], Iterator[bytes]]


@dataclass(frozen=True)
class Target:
    """One file that is read.

    area: what it is part of.
    path: where it lies; its content is whole at first.
    read: reads it, and everything that belongs to it.
    """

    area: str
    path: Path
    read: Callable[[], object]
    mutations: Mutations


@dataclass
class Outcome:
    """What came of the mutations of a file; `foreign`: exceptions that are no `UserError`, with the mutation's seed."""

    tried: int = 0
    refused: int = 0
    foreign: list[str] = field(default_factory=list)


def fuzz(target: Target, seed: int, count: int) -> Outcome:
    """Read `count` mutations of a file; afterwards it is whole again."""
    whole, outcome = target.path.read_bytes(), Outcome()
    target.read()
    for number, content in enumerate(target.mutations(whole, seed, count)):
        target.path.write_bytes(content)
        outcome.tried += 1
        try:
            _read_in_time(target)
        except UserError:
            outcome.refused += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome.foreign.append(f"{target.area}: {target.path.name}, seed {seed}, mutation {number}: {error!r:.200}")
    target.path.write_bytes(whole)
    return outcome


def _read_in_time(target: Target) -> None:
    def end(*_: object) -> None:
        raise TimeoutError("it takes too long")

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def targets(folder: Path) -> list[Target]:
    """Small whole files of every kind, in a new folder."""
    made = (_configs, _images, _records, _checkpoint, _plan, _ratings, _heads, _thresholds, _sweep)
    found = []
    for make in made:
        own = folder / make.__name__.strip("_")
        own.mkdir(parents=True)
        found += make(own)
    return found


def _texts(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    return (text.encode("utf-8", "surrogatepass") for text in of_text(content.decode(), seed, count))


def _jsons(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Half of them are JSON with other values, the others other bytes."""
    return _in_turn(of_json(content, seed, count), of_bytes(content, seed, count), count)


def _rows(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    first, _, others = content.partition(b"\n")
    return (row.replace(b"\n", b" ") + b"\n" + others for row in _jsons(first, seed, count))


def _in_turn(first: Iterator[bytes], second: Iterator[bytes], count: int) -> Iterator[bytes]:
    return (next(second if number % 2 else first) for number in range(count))


def _configs(folder: Path) -> list[Target]:
    model, photos = folder / "model", folder / "photos"
    model.mkdir()
    photos.mkdir()
    for index in range(3):
        Image.new("RGB", (64, 64), (80 * index, 0, 0)).save(photos / f"{index}.png")
    config, sweep, overrides = folder / "config.yaml", folder / "sweep.yaml", folder / "overrides.txt"
    config.write_text(tiny.tiny_config(folder, model, photos))
    shutil.copy(ROOT / "configs/demo.yaml", folder / "demo.yaml")
    sweep.write_text(
        f"base: {config}\noutput_dir: {folder / 'sweep'}\n"
        "set: {monitor.sinks: {}, monitor.stopping: []}\n"
        "axes:\n  train.rank: [1, 2]\n  data.instance_count: [1, 2]\nseeds: [0, 1]\n"
    )
    overrides.write_text(
        "train.rank=4\ntrain.max_steps=10\nmonitor.grid.seeds=[1, 2]\nmonitor.sinks={tensorboard: {}}\n"
        "data.held_out=1\noutput_dir=runs/x\nmonitor.stopping=[{rule: patience, patience: 2}]\nmodel=x/y"
    )

    def read_overrides() -> None:
        load_config(config, overrides.read_bytes().decode("utf-8", "surrogateescape").split("\n"))

    return [
        Target("config", config, lambda: load_config(config), _texts),
        Target("config", folder / "demo.yaml", lambda: load_config(folder / "demo.yaml"), _texts),
        Target("overrides", overrides, read_overrides, _texts),
        Target("sweep", sweep, lambda: make_plan(load_sweep(sweep), None), _texts),
    ]


def _images(folder: Path) -> list[Target]:
    image = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for suffix, form, options in (
        ("png", "PNG", {}),
        ("jpg", "JPEG", {"exif": exif}),
        ("webp", "WEBP", {}),
        ("gif", "GIF", {}),
        ("tif", "TIFF", {"compression": "tiff_lzw"}),
        ("bmp", "BMP", {}),
    ):
        path = folder / f"photo.{suffix}"
        image.save(path, form, **options)
        found.append(Target("images", path, lambda path=path: read_image(path), of_bytes))
    return found


def _records(folder: Path) -> list[Target]:
    run = folder / "run"
    write_run(run, {0: 0.2, 5: 0.4, 10: 0.5})
    (run / "weights/step-000010").mkdir(parents=True)
    (run / "weights/step-000010" / NOTE).write_text('{"step": 10, "metric": "face_similarity", "scores": {"a": 0.5}}')
    (run / CONFIG).write_text((ROOT / "configs/demo.yaml").read_text())
    (run / TRAINING).write_text('{"step": 10, "loss": 0.1, "learning_rate": 1e-4}\n' * 3)
    (run / PHOTOS).write_text(
        '{"photos": [{"file": "a.jpg", "similarity": 0.5, "warnings": ["blurred"]}], "warnings": []}'
    )

    def show() -> None:
        print_summary(read_run(run))
        kept_weights(run)

    def page() -> None:
        shutil.rmtree(folder / "page", ignore_errors=True)
        write_page(folder / "page", [run])

    return [
        Target("records", run / RUN, show, _jsons),
        Target("records", run / EVALUATIONS, show, _rows),
        Target("records", run / IMAGES, show, _rows),
        Target("records", run / RUN, page, _jsons),
        Target("records", run / EVALUATIONS, page, _rows),
        Target("records", run / TRAINING, lambda: read_training(run), _rows),
        Target("records", run / PHOTOS, lambda: read_survey(run), _jsons),
        Target("records", run / "weights/step-000010" / NOTE, show, _jsons),
        Target("records", run / CONFIG, lambda: recorded_config(run / CONFIG), _texts),
    ]


def _checkpoint(folder: Path) -> list[Target]:
    config = TrainConfig(rank=1)
    trainable = make_trainable(tiny.stable_diffusion(), config, 0)
    optimizer = make_optimizer(trainable, config)
    checkpoints.save(folder, 10, trainable, optimizer, {"model": "x", "train.rank": 1}, {"scale": 2.0}, keep=1)
    place = folder / "step-000010"

    def resume() -> None:
        checkpoints.restore(checkpoints.read(place), trainable, optimizer)

    return [
        Target("manifests", place / MANIFEST, resume, _jsons),
        Target("manifests", place / checkpoints.WEIGHTS, resume, of_bytes),
        Target("manifests", place / checkpoints.OPTIMIZER, resume, of_bytes),
    ]


def _plan(folder: Path) -> list[Target]:
    plan = folder / "plan"
    write_small_plan(plan, images=3, photos=2)
    return [
        Target("plans", plan / PLAN, lambda: open_gallery(plan), _jsons),
        Target("plans", plan / TASKS, lambda: open_gallery(plan), _texts),
    ]


def _ratings(folder: Path) -> list[Target]:
    ratings = [
        Rating(f"image-{n}", name, "m", 1 + n % 5, "2026-01-02T03:04:05.678Z", 900) for n in range(6) for name in "ab"
    ]
    table, tasks, store = folder / "ratings.csv", folder / "label_studio.json", RatingStore(folder / RATINGS)
    table.write_text(to_csv(ratings))
    answer = {"value": {"rating": 4}, "type": "rating", "from_name": "m"}
    annotation = {
        "completed_by": {"email": "a@b"},
        "result": [answer],
        "lead_time": 1.5,
        "created_at": "2026-01-02T03:04Z",
    }
    tasks.write_text(
        json.dumps([{"id": n, "data": {"image": f"{n}.png"}, "annotations": [annotation]} for n in range(4)])
    )
    store.create()
    for number, rating in enumerate(ratings):
        store.add(f"key-{number}", rating)
    means = folder / "means.csv"
    means.write_text("image,score\n" + "".join(f"{n}.png,{1 + n}\n" for n in range(6)))

    def stored() -> None:
        store.all(), store.labelers(), store.latest("a")

    return [
        Target("ratings", table, lambda: read_rating_files([table]), _texts),
        Target("ratings", tasks, lambda: read_rating_files([tasks]), _jsons),
        Target("ratings", store.file, stored, of_bytes),
        Target("ratings", means, lambda: read_ratings(means), _texts),
    ]


def _heads(folder: Path) -> list[Target]:
    def read(path: Path) -> None:
        head, metadata = read_head(path)
        scale_of(metadata), clip_of(metadata)
        head(torch.zeros(1, 8))

    found = []
    for name, widths in (("head.safetensors", (8, 5, 1)), ("head.pth", (8, 1))):
        path = write_head(folder / name, widths)
        found.append(Target("heads", path, lambda path=path: read(path), of_bytes))
    onnx = save_onnx(folder / "recognizer.onnx")
    return [*found, Target("heads", onnx, lambda: load_recognizer(onnx), of_bytes)]


def _thresholds(folder: Path) -> list[Target]:
    path = folder / "thresholds.json"
    row = {
        "thresholds": [0.1, 0.2, 0.3, 0.4],
        "empty_below": 0,
        "method": "quadratic",
        "cost": 0.5,
        "power": 2.0,
        "labelers": 3,
        "images": 40,
        "labels": 120,
        "weights": {"recognizer": "dlib"},
    }
    path.write_text(json.dumps({"format": 1, "metrics": {"face_similarity": row}}))
    return [Target("thresholds", path, lambda: read_thresholds(path), _jsons)]


def _sweep(folder: Path) -> list[Target]:
    sweep = folder / "sweep"
    write_sweep(sweep, lambda *_: 0.5, values=(1, 2), seeds=(0,), images=False)
    return [Target("sweep", sweep / STATE, lambda: read_state(sweep), _jsons)]
