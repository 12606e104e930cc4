"""YAML that raises in constructors, alias bombs, deep nesting, values of megabytes, a sweep of a million trials."""

import os
import resource
import time
from itertools import pairwise
from pathlib import Path

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.sections import dotted_keys
from finetune_monitor.base.yaml_files import parse_yaml
from finetune_monitor.cli import main
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.training.config import Config, load_config
from support.mutations import HOSTILE, of_text
from support.places import ROOT

DEMO = ROOT / "configs/demo.yaml"
SWEEP = ROOT / "configs/sweep_photos_demo.yaml"
LETTERS = "abcdefghij"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LETTERS)
)
COSTLY = {
    "alias bomb": BOMB,
    "an alias of itself": "train: &a {rank: *a}",
    "flow nesting": "train: " + "[" * 100_000,
    "block nesting": "".join(" " * level + "a:\n" for level in range(1200)),
    "dashes": "- " * 400_000,
    "megabytes": f"model: {'x' * 5_000_000}",
    "a long value": f'model: x\ntrain: {{rank: "{"x" * 900_000}"}}',
    "a long key": f"? {'x' * 900_000}\n: 1",
    "a long alias": f"a: *{'x' * 900_000}",
    "a long tag": f"a: !{'x' * 900_000} b",
    "many values": "".join(f"k{i}: 1\n" for i in range(60_000)),
    "many problems": f"train: [{'1,' * 40_000}]",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY.keys())
@pytest.mark.parametrize("load", [load_config, load_sweep])
def test_one_short_message_in_seconds(load, text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    before = time.process_time()
    with pytest.raises(UserError) as caught:
        load(path)
    assert time.process_time() - before < 10  # it took minutes, or had no end
    assert len(str(caught.value)) < 2000


def test_a_sweep_of_many_trials_is_refused_before_it_takes_memory(tmp_path):
    values = ", ".join(map(str, range(1, 31)))
    keys = ("train.rank", "train.max_steps", "train.batch_size", "train.warmup_steps")
    axes = ", ".join(f"{key}: [{values}]" for key in keys)
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{{base: {DEMO}, output_dir: {tmp_path}/sweep, axes: {{{axes}}}}}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"found 810,000 combinations, expected at most 10,000 trials"):
        load_sweep(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("key", ["output_dir", "data.instance_images", "data.held_out", "monitor.thresholds"])
def test_the_home_folder_of_nobody_is_named(key, capsys):
    assert main(["train", "--config", str(DEMO), f"{key}=~nosuchuser/x"]) == 2
    assert "found no home folder for ~nosuchuser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "read"),
    [("2026-11-28", "2026-11-28"), ("12:30", "12:30"), ("=", "="), ("0b1", "0b1"), ("1e-4", 1e-4), ("1_000", 1000),
     ("0x10", 16), ("off", False), ("~", None), ("'7'", "7"), ("-.inf", float("-inf")), ("9" * 500, "9" * 500)],
)  # fmt: skip
def test_values_are_plain(written, read):
    assert parse_yaml(f"key: {written}", "here") == {"key": read}


def test_aliases_and_merges_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", "here")["b"] == {"x": 1, "y": 2}


def _no_foreign_exception(read, case):
    try:
        read()
    except UserError as error:
        return len(str(error))
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} escaped from {case[:2000]!r}") from error
    return 0


@pytest.mark.slow
def test_damaged_configs_raise_no_foreign_exception(tmp_path):
    path = tmp_path / "config.yaml"
    texts = [DEMO.read_text(), load_config(DEMO).to_yaml()]
    for seed, text in enumerate(texts):
        for case in of_text(text, seed, 150):
            path.write_text(case, errors="backslashreplace")
            _no_foreign_exception(lambda: load_config(path), case)


@pytest.mark.slow
def test_hostile_overrides_raise_no_foreign_exception():
    refused = 0
    for number, key in enumerate(dotted_keys(Config)):
        for value in HOSTILE[number % 7 :: 7]:
            change = f"{key}={value}"
            refused += _no_foreign_exception(lambda change=change: load_config(DEMO, [change]), change) > 0
    assert refused > 300


def test_damaged_sweeps_raise_no_foreign_exception(tmp_path):
    path = tmp_path / "sweep.yaml"
    text = SWEEP.read_text().replace("configs/", f"{ROOT}/configs/")
    for case in of_text(text, 3, 150):
        path.write_text(case, errors="backslashreplace")
        _no_foreign_exception(lambda: make_plan(load_sweep(path), None), case)


def test_a_config_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="not a regular file"):
        load_config(Path(tmp_path / "config.yaml"))
