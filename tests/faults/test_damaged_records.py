"""A record from elsewhere that is a folder, a pipe, or a looping link, or has content that does not belong there."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from finetune_monitor.cli import main
from finetune_monitor.models.export import NOTE
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.kept_weights import BEST, CARD, LORA_FILE
from finetune_monitor.record.run_directory import CONFIG, CONTACT_SHEET, EVALUATIONS, IMAGES, PHOTOS, RUN, TRAINING
from finetune_monitor.record.sweep_directory import STATE
from finetune_monitor.serving.addresses import KEY, PORT
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import PLAN, TASKS
from support.label_plans import write_small_plan
from support.runs import GRID, write_run
from support.sweep_folders import write_sweep

SECONDS = 20

STRANGE = ({}, [], {"a": 1}, [[]], "text", -1, 10**400, float("nan"), 1e999, True, None, 0.5)


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = (_folder, _fifo, _loop, _endless)


@contextmanager
def _no_hang() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError("the command waits")

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_run(folder / "run", {0: 0.2, 10: 0.5}, StopReason.PLATEAU)
    (folder / "run" / BEST).mkdir()
    for name, content in ((NOTE, '{"step": 10}'), (CARD, "---\n---\n"), (LORA_FILE, "")):
        (folder / "run" / BEST / name).write_text(content)
    (folder / "run" / CONFIG).write_text("model: x\n")
    return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return shutil.copytree(made / "run", tmp_path / "run")


def _commands(run: Path, output: Path) -> dict[str, list[Any]]:
    """Every command that reads a run directory."""
    return {
        "show": [run],
        "compare": [run, run, "--step", "0", "10"],
        "report": [run, "-o", output / "page"],
        "export": [run, "--step", "best", "--to", output / "weights.safetensors"],
        "render": [run, "--step", "0", "--cell", GRID.cells[0].id],
        "label plan": [run, "-o", output / "plan"],
        "push": [run, "--repo", "somebody/something"],
    }


def _outcomes(commands: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[int, str]]:
    """By command: the status, and what it said. None raises or hangs."""
    found = {}
    for name, words in commands.items():
        with _no_hang():
            status = main([*name.split(), *map(str, words)])
        found[name] = status, capsys.readouterr().err
        assert status in (0, 1, 2), (name, found[name])
        assert "Traceback" not in found[name][1]
        assert len(found[name][1]) < 5000
    return found


WEIGHTS = (f"{BEST}/{NOTE}", f"{BEST}/{CARD}", f"{BEST}/{LORA_FILE}")
BESIDE = (CONFIG, TRAINING, PHOTOS, CONTACT_SHEET, *WEIGHTS, "images", BEST)
"""What a run directory holds besides its record."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [RUN, EVALUATIONS, IMAGES])
def test_every_command_has_one_message_for_what_is_no_record(name, kind, run, tmp_path, capsys):
    (run / name).unlink()
    kind(run / name)
    for command, (status, said) in _outcomes(_commands(run, tmp_path / "output"), capsys).items():
        assert status == 2, command
        assert str(run / name) in said, command


@pytest.mark.parametrize("name", [RUN, EVALUATIONS, IMAGES])
def test_nesting_without_end_is_damage(name, run, tmp_path, capsys):
    (run / name).write_bytes(b"[" * 200_000 + b"\n{}\n")
    for command, (status, said) in _outcomes(_commands(run, tmp_path / "output"), capsys).items():
        assert status == 2, command
        assert str(run / name) in said, command


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BESIDE)
def test_no_command_hangs_at_what_lies_beside_a_record(name, kind, run, tmp_path, capsys):
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    else:
        (run / name).unlink(missing_ok=True)
    kind(run / name)
    found = _outcomes(_commands(run, tmp_path / "output"), capsys)
    assert found["show"][0] == found["compare"][0] == found["report"][0] == 0


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value in a JSON value."""
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*way, key))


def _with(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    place = changed
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = new
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: str(value)[:8])
def test_no_value_of_run_json_is_trusted(strange, run, tmp_path, capsys):
    content = json.loads((run / RUN).read_text())
    for index, way in enumerate(_places(content)):
        (run / RUN).write_text(json.dumps(_with(content, way, strange)))
        commands = _commands(run, tmp_path / f"output-{index}")
        named = list(commands)[index % len(commands)]
        _outcomes({named: commands[named]}, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("name", [EVALUATIONS, IMAGES])
def test_no_value_of_a_row_is_trusted(name, strange, run, tmp_path, capsys):
    first, *others = (run / name).read_text().splitlines()
    content = json.loads(first)
    for index, way in enumerate(_places(content)):
        (run / name).write_text("\n".join([json.dumps(_with(content, way, strange)), *others, ""]))
        commands = _commands(run, tmp_path / f"output-{index}")
        named = list(commands)[index % len(commands)]
        _outcomes({named: commands[named]}, capsys)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("epoch", {}),
        ("wall_time", [1]),
        ("seconds", {"render": {}}),
        ("overhead", {}),
        ("step", -1),
        ("step", "3"),
        ("step", 1e999),
        ("images", 2.0),
        ("alarms", "aesthetic"),
    ],
)
def test_the_message_names_file_line_and_value(key, wrong, run, capsys):
    first, second = (run / EVALUATIONS).read_text().splitlines()
    (run / EVALUATIONS).write_text(f"{first}\n{json.dumps({**json.loads(second), key: wrong})}\n")
    for words in (["show", run], ["compare", run, run, "--step", "0", "10"]):
        assert main(list(map(str, words))) == 2
        said = capsys.readouterr().err
        assert f"{EVALUATIONS}:2: damaged row" in said
        assert "restore the file" in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [PLAN, TASKS, RATINGS, KEY, PORT])
def test_a_plan_that_is_none_has_one_message(name, kind, tmp_path, capsys):
    plan = tmp_path / "plan"
    write_small_plan(plan)
    RatingStore(plan / RATINGS).create()
    (plan / name).unlink(missing_ok=True)
    kind(plan / name)
    reading: dict[str, list[Any]] = {
        "label export": [plan, "-o", tmp_path / "page.html"],
        "label export ": [plan, "-o", tmp_path / "ratings.csv"],
        "label serve": [plan, "--host", "127.0.0.1"],
    }
    concerned = {
        PLAN: ("label export", "label serve", "label export "),
        TASKS: ("label export", "label serve", "label export "),
        RATINGS: ("label serve", "label export "),
        KEY: (),  # read where others may open the page
        PORT: ("label serve",),
    }[name]
    found = _outcomes({command: reading[command] for command in concerned}, capsys)
    assert all(status == 2 and str(plan / name) in said for status, said in found.values()), found


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_that_is_none_has_one_message(kind, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    write_sweep(sweep, lambda *_: 0.5, values=(1, 2), seeds=(0,))
    (sweep / STATE).unlink()
    kind(sweep / STATE)
    found = _outcomes({"report": [sweep, "-o", tmp_path / "page"]}, capsys)
    assert found["report"][0] == 2
    assert str(sweep) in found["report"][1]


@pytest.mark.slow
@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: str(value)[:8])
def test_no_value_of_a_sweep_is_trusted(strange, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    write_sweep(sweep, lambda *_: 0.5, values=(1, 2), seeds=(0,), images=False)
    content = json.loads((sweep / STATE).read_text())
    for index, way in enumerate(_places(content)):
        (sweep / STATE).write_text(json.dumps(_with(content, way, strange)))
        _outcomes({"report": [sweep, "-o", tmp_path / f"page-{index}"]}, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_ratings_and_scores_that_are_none_have_one_message(kind, tmp_path, capsys):
    kind(tmp_path / "ratings.csv")
    words = [tmp_path / "ratings.csv", "--scores", tmp_path / "ratings.csv", "-o", tmp_path / "output"]
    found = _outcomes({"agree": words}, capsys)
    assert found["agree"][0] == 2
    assert "ratings.csv" in found["agree"][1]
