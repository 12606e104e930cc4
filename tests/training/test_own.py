"""Metrics, rules, sinks and hooks of the user's own: named in a config, checked before training, and used in a run."""

import subprocess
import sys
import time

import pytest
import yaml

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.history import read_run
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.sweep.trials.child import Child
from finetune_monitor.training import registry
from finetune_monitor.training.config import load_config, recorded_config
from finetune_monitor.training.run import run
from support.own_code import MODULE, PLUGIN
from support.places import ROOT

METRIC = (
    "monitor.metrics={brightness: {class: my_module:Brightness, gain: 0.5}, aesthetic: null, face_similarity: null}"
)
RULE = "monitor.stopping=[{rule: my_module:AtStep, step: 3}]"
HOOKS = "monitor.hooks=[my_module:failing, my_module:on_evaluation]"
CONTRAST = "monitor.metrics={contrast: {class: my_module:Contrast}, aesthetic: null, face_similarity: null}"


@pytest.fixture
def modules(monkeypatch):
    """What is imported in a test is gone after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in sys.modules.keys() - before:
        if name.startswith(("my_", "grain_")):
            del sys.modules[name]


@pytest.fixture
def config(write_config, modules):
    """A config outside the checkout, with my_module.py beside it."""
    path = write_config()
    (path.parent / "my_module.py").write_text(MODULE)
    return path


@pytest.fixture
def package(tmp_path, modules, monkeypatch):
    """Installs a package with these entry points: lines below a group's name."""

    def install(points: str, name: str = "grain") -> None:
        site = tmp_path / f"site-{name}"
        (site / f"{name}-1.2.dist-info").mkdir(parents=True)
        (site / f"{name}_package.py").write_text(PLUGIN)
        (site / f"{name}-1.2.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (site / f"{name}-1.2.dist-info/entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(str(site))
        registry.offered.cache_clear()

    yield install
    registry.offered.cache_clear()


@pytest.mark.slow
def test_a_run_with_a_metric_a_rule_and_hooks_of_ones_own(config, run_folder, caplog):
    assert run(load_config(config, [METRIC, RULE, HOOKS])) == 0
    history = read_run(run_folder)
    assert [each.step for each in history.evaluations] == [0, 3]
    assert history.evaluations[-1].scores["brightness"].n == 2
    assert 0 < history.evaluations[-1].scores["brightness"].mean < 127.5
    assert history.run["ended"]["reason"] == "step 3 is over"
    assert history.run["best_metric"] == "brightness"
    options = {"gain": 0.5, "channel": "all"}
    assert history.weights == {"brightness": {"class": "my_module:Brightness", **options}}
    calls = sys.modules["my_module"].calls
    assert calls[0] == "failing"
    assert [call[:2] for call in calls[1:]] == [(0, False), (3, True)]
    assert all((run_folder / call[2]).is_file() for call in calls[1:])
    assert (
        caplog.text.count("hook failing failed and is turned off for the rest of the run: RuntimeError('no network')")
        == 1
    )


@pytest.mark.slow
def test_scores_of_another_class_or_options_are_not_added_to_a_run(config, run_folder):
    quiet = ["monitor.stopping=[]", "monitor.sinks={}"]
    assert run(load_config(config, [METRIC, *quiet, "train.max_steps=2"])) == 0
    for changed, said in (
        ("class=my_module:Other", "my_module:Other"),
        ("gain=0.25", "gain is 0.5, the config says 0.25"),
    ):
        with pytest.raises(UserError, match=said):
            run(load_config(config, [METRIC, *quiet, f"monitor.metrics.brightness.{changed}"]))
    assert run(load_config(config, [METRIC, *quiet, "train.max_steps=3"])) == 0
    assert [each.step for each in read_run(run_folder).evaluations] == [0, 2, 3]


@pytest.mark.slow
def test_a_metric_may_be_made_for_the_run_and_describe_what_it_measures(config, run_folder):
    options = [CONTRAST, "monitor.stopping=[{rule: target, metric: contrast_half, score: 60}]", "train.max_steps=1"]
    assert run(load_config(config, options)) == 0
    history = read_run(run_folder)
    assert history.weights == {"contrast": {"class": "my_module:Contrast", "photos": 3}}
    assert history.columns["contrast_half"].bounds == (0.0, 64.0)
    assert history.run["best_metric"] == "contrast_half"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["metrics.sharp={class: no_module:Sharp}"],
            "sharp.class: found 'no_module:Sharp', but no module no_module in",
        ),
        (["metrics.sharp={class: my_module:Sharp}"], r"but my_module \(.*my_module.py\) has no Sharp"),
        (["metrics.sharp={class: my_module:Brighness}"], r"did you mean Brightness\?"),
        (
            ["metrics.sharp={class: my_broken:Sharp}"],
            r"sharp.class: .*importing its module fails: NameError.*my_broken.py:2",
        ),
        (["metrics.sharp={class: Sharp}"], "sharp.class: found 'Sharp', expected module:name"),
        (["metrics.sharp={class: 3}"], "sharp.class: found 3, expected module:name"),
        (["metrics.sharp={class: my_module:on_evaluation}"], "sharp.class: .*expected a class"),
        (["metrics.silent={class: my_module:NoScore}"], "silent.class: .*a class without score, expected score"),
        (
            ["metrics.sharp={class: my_module:Brightness}"],
            "has the name 'brightness', expected the name of its key, 'sharp'",
        ),
        (["metrics.brightness={class: my_module:Brightness}"], "monitor.metrics.brightness.gain: missing"),
        (["metrics.brightness={class: my_module:Brightness, gain: x}"], "brightness.gain: found 'x'"),
        (["metrics.brightness={class: my_module:Brightness, gian: 1}"], r"gian: unknown key \(did you mean gain\?\)"),
        (
            ["metrics.brightness={class: my_module:Brightness, gain: 1, channel: blue}"],
            "brightness.channel: found 'blue', expected 'all' or 'red'",
        ),
        (
            ["metrics.contrast={class: my_module:Contrast, flor: 1}"],
            r"contrast.flor: unknown key \(did you mean floor\?\)",
        ),
        (["metrics.contrast={class: my_module:Contrast, floor: 200}"], "contrast.floor: found 200.0, expected less"),
        (["metrics.sharp={radius: 2}"], "sharp: unknown key .*; your own class needs class: module:Name"),
        (["metrics.aestetic=null"], r"monitor.metrics.aestetic: unknown key \(did you mean aesthetic\?\)"),
        (["sinks.own={class: my_module:Brightness}"], "own.class: .*a class without start, write, close"),
        (["stopping=[{rule: my_module:Nothing}]"], "stopping.0.rule: .*has no Nothing"),
        (["stopping=[{rule: my_module:Brightness}]"], "stopping.0.rule: .*a class without decide"),
        (["stopping=[{rule: my_module:Blind}]"], "stopping.0.rule: my_module:Blind has no metric"),
        (["stopping=[{rule: my_module:AtStep}]"], "stopping.0.step: missing"),
        (["stopping=[{rule: my_module:AtStep, stp: 3}]"], r"stopping.0.stp: unknown key \(did you mean step\?\)"),
        (["stopping=[{rule: my_module:AtStep, step: -1}]"], "stopping.0.step: found -1, expected 0 or more"),
        (
            ["stopping=[{rule: my_module:Never}]"],
            "stopping.0.metric: found 'brightness', expected one of face_similarity",
        ),
        (["stopping=[3]"], "stopping.0: found 3, expected the keys of a stopping rule"),
        (["hooks=[my_module:NUMBER]"], "monitor.hooks.0: found 'my_module:NUMBER', which is 3, expected a function"),
        (["hooks=[my_module:of_one]"], r"hooks.0: found 'my_module:of_one' with the parameters \(evaluation\)"),
        (["hooks=[on_evaluation]"], "hooks.0: found 'on_evaluation', expected module:name"),
        (["hooks=[my_module:nothing]"], "hooks.0: .*has no nothing"),
    ],
)
def test_what_is_wrong_is_said_when_the_config_is_read(config, overrides, said):
    (config.parent / "my_broken.py").write_text("x = 1\ny = z\n")
    with pytest.raises(UserError, match=said):
        load_config(config, [f"monitor.{each}" for each in overrides])


def test_all_that_is_wrong_is_said_at_once(config):
    with pytest.raises(UserError) as caught:
        load_config(config, ["train.rank=x", "monitor.metrics.brightness={class: my_module:Brightness, gian: 1}"])
    text = str(caught.value)
    for said in ("train.rank: found 'x'", "brightness.gain: missing", "brightness.gian: unknown key"):
        assert said in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["monitor.metrics.before={class: my_module:FromBefore}"], "monitor.metrics.before: .*OSError.'no weights'"),
        (["monitor.metrics.loose={class: my_module:NoBounds}"], "monitor.metrics.loose: .*bounds: found None"),
        (
            [CONTRAST, "monitor.stopping=[{metric: contrast_third}]"],
            "stopping.0.metric: found 'contrast_third', expected one of contrast, contrast_half.*did you mean",
        ),
        (
            [CONTRAST, "monitor.stopping=[{rule: target, metric: contrast_half, score: 65}]"],
            "stopping.0.score: found 65, expected 0 to 64, the bounds of contrast_half",
        ),
    ],
)
def test_what_only_a_made_metric_shows_is_said_before_training(config, run_folder, overrides, said):
    with pytest.raises(UserError, match=said):
        run(load_config(config, ["monitor.sinks={}", *overrides]))
    assert not (run_folder / "run.json").exists()


def test_the_resolved_config_reads_back_the_same_beside_its_modules(config, tmp_path):
    read = load_config(config, [METRIC, RULE, HOOKS])
    content = yaml.safe_load(read.to_yaml())["monitor"]
    assert content["metrics"]["brightness"] == {"class": "my_module:Brightness", "gain": 0.5, "channel": "all"}
    assert content["stopping"] == [{"rule": "my_module:AtStep", "step": 3, "metric": "brightness"}]
    (tmp_path / "again.yaml").write_text(read.to_yaml())
    assert load_config(tmp_path / "again.yaml") == read


def test_no_module_is_imported_where_a_recorded_config_is_only_looked_at(config, tmp_path):
    text = load_config(config, [METRIC, RULE, HOOKS]).to_yaml()
    (tmp_path / "recorded.yaml").write_text(text.replace("my_module", "my_trap"))
    (tmp_path / "my_trap.py").write_text("raise SystemExit('imported')")
    recorded, unknown = recorded_config(tmp_path / "recorded.yaml")
    assert unknown == []
    assert recorded.to_yaml() == text.replace("my_module", "my_trap")
    assert (recorded.monitor.columns, recorded.monitor.rules) == ({}, [])
    assert "my_trap" not in sys.modules


@pytest.mark.slow
def test_train_py_finds_modules_beside_the_config_and_in_the_working_directory(config, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "my_second.py").write_text("value = 1\n")
    hooks = "monitor.hooks=[my_module:nothing, my_second:nothing]"
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), METRIC, hooks]
    found = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert f"my_module ({config.parent / 'my_module.py'}) has no nothing" in found.stderr
    assert f"my_second ({elsewhere / 'my_second.py'}) has no nothing" in found.stderr
    assert "metrics" not in found.stderr


POINTS = (
    "[finetune_monitor.metrics]\ngrain = grain_package:Grain\nbroken = grain_package:Nothing\n"
    "aesthetic = grain_package:Grain\n[finetune_monitor.rules]\nnever = grain_package:Never\n"
    "[finetune_monitor.sinks]\npaper = grain_package:Paper\n"
)


@pytest.mark.slow
def test_what_a_package_offers_is_used_by_its_name(package, write_config, run_folder, caplog):
    package(POINTS)
    metrics = "monitor.metrics={grain: {size: 3}, face_similarity: null, aesthetic: null}"
    options = [metrics, "monitor.stopping=[{rule: never}]", "monitor.sinks={paper: {}}", "train.max_steps=1"]
    config = load_config(write_config(), options)
    again = run_folder.parent / "again.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again) == config
    assert recorded_config(again)[0].to_yaml() == config.to_yaml()
    assert run(config) == 0
    history = read_run(run_folder)
    assert history.evaluations[-1].scores["grain"].mean == 0.5
    assert history.weights == {"grain": {"class": "grain_package:Grain", "size": 3}}
    assert "package grain 1.2: offers aesthetic in finetune_monitor.metrics" in caplog.text


def test_a_package_that_is_broken_is_named_where_a_config_uses_it_and_only_there(package, write_config):
    package(POINTS)
    assert "grain_package" not in sys.modules
    load_config(write_config())
    assert "grain_package" not in sys.modules
    with pytest.raises(
        UserError, match=r"metrics.broken: found 'broken' of package grain 1.2, but it cannot be loaded"
    ):
        load_config(write_config(), ["monitor.metrics.broken={}"])
    package("[finetune_monitor.rules]\nnever = other_package:Never\n", "other")
    with pytest.raises(UserError, match=r"stopping.0.rule: found 'never', which several packages offer: package "):
        load_config(write_config(), ["monitor.stopping=[{rule: never}]"])


def test_a_sweep_plans_with_the_modules_beside_its_base(config, tmp_path):
    content = yaml.safe_load(config.read_text())
    content["monitor"]["stopping"] = []
    config.write_text(yaml.safe_dump(content))
    sweep = {
        "base": str(config),
        "output_dir": str(tmp_path / "sweep"),
        "set": {"monitor.metrics.brightness": {"class": "my_module:Brightness", "gain": 2}},
        "axes": {"train.rank": [1, 2]},
        "early_termination": {"metric": "brightness", "grace_steps": 1},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    plan = make_plan(load_sweep(tmp_path / "sweep.yaml"), None)
    assert plan.goals == {"early_termination": "brightness"}
    assert "brightness" in plan.shown_metrics
    plan.write_config(plan.trials[0])
    written = plan.folder / "configs" / f"{plan.trials[0].name}.yaml"
    assert recorded_config(written)[0].to_yaml() == plan.validated(plan.trials[0]).to_yaml()
    wrong = "set={monitor.metrics.brightness: {class: my_module:Brightness, gian: 2}}"
    with pytest.raises(UserError, match=r"monitor.metrics.brightness.gian: unknown key"):
        make_plan(load_sweep(tmp_path / "sweep.yaml", [wrong]), None)


@pytest.mark.slow
def test_a_trial_finds_the_modules_beside_the_sweeps_base(config, tmp_path):
    content = yaml.safe_load(config.read_text())
    content["monitor"]["hooks"] = ["my_module:nothing"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "trial.yaml").write_text(yaml.safe_dump(content))
    child = Child(elsewhere / "trial.yaml", tmp_path / "log", ROOT, 1, 0, str(config.parent))
    while child.poll() is None:
        time.sleep(0.05)
    assert f"my_module ({config.parent / 'my_module.py'}) has no nothing" in child.error()
    child.stop(1)
