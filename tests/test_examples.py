"""The scripts in examples/ do what they say, here on a tiny model."""

import runpy
import sys

import pytest

from finetune_monitor.record.history import read_run
from support.places import ROOT


@pytest.fixture
def run_example(monkeypatch, tmp_path, tiny_model):
    """Run a script as a user does, with the tiny model; returns what it recorded."""

    def run(name: str, *options: str):
        output = tmp_path / "run"
        monkeypatch.setattr(sys, "argv", [name, "--model", str(tiny_model), "--output", str(output), *options])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return read_run(output)

    return run


def test_own_loop(run_example, photos):
    history = run_example("own_loop.py", "--photos", str(photos), "--size", "32", "--steps", "4", "--every", "2")
    assert [evaluation.step for evaluation in history.evaluations] == [0, 2, 4]
    assert (history.output_dir / "page/index.html").is_file()
    assert list((history.output_dir / "tensorboard").rglob("*tfevents*"))


def test_custom_metric(run_example):
    history = run_example("custom_metric.py")
    assert 0 < history.evaluations[0].scores["sharpness"].mean < 255


def test_every_example_has_a_test():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert names == {"own_loop.py", "custom_metric.py"}
