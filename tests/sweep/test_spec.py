"""What is wrong with a sweep is told at once, all of it, before anything starts; Ray is not needed for that."""

import math
import re

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.sweep.trials.naming import alike, search_name, trial_name
from support import sweeps
from support.sweep_folders import write_trial

SPACE = {"train.rank": [1, 2, 4, 8]}


@pytest.fixture
def plan(tmp_path, tiny_model, photos):
    """The plan of a sweep's keys, from a file on the disk; overrides are as on the command line."""

    def made(*overrides, known=None, **keys):
        path = sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)
        return make_plan(load_sweep(path, overrides), known)

    return made


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"axis": {"train.rank": [1]}}, r"axis: unknown key \(did you mean axes\?\)"),
        ({"axes": {"data.instance_cont": [1]}}, r"data.instance_cont: unknown key \(did you mean data.instance_count"),
        ({"axes": {"rank": [1]}}, r"axes: rank: unknown key"),
        ({"set": {"trainn.rank": 1}, "seeds": [0]}, r"set: trainn.rank: unknown key \(did you mean train.rank"),
        ({"people": {"ana": {"data.photos": "x"}}}, r"people.ana: data.photos: unknown key"),
        ({"search": {"trials": 2, "space": {"train.rnk": [1, 2]}}}, r"search.space: train.rnk: unknown key"),
        ({"axes": {"train.rank": []}}, r"train.rank: found no values"),
        ({"axes": {"train.rank": [1, 2, 1]}}, r"train.rank: found 1 more than once"),
        ({"seeds": [0, 0]}, r"seeds: found 0 more than once"),
        ({}, r"found nothing to vary, expected axes, search, people, or seeds"),
        ({"axes": {"train.rank": [1]}, "search": {"trials": 2, "space": SPACE}}, r"axes and search: found both"),
        ({"people": {"ana": {}}}, r"people.ana: found no keys"),
        ({"search": {"trials": 5, "space": SPACE}}, r"search.trials: found 5, but the space has 4 combinations"),
        ({"search": {"trials": 2, "space": {"train.rank": 3}}}, r"train.rank: found 3, expected a list of values or"),
        (
            {"search": {"trials": 2, "space": {"train.rank": {"low": 4, "high": 2}}}},
            r"expected finite numbers low < high",
        ),
        (
            {"search": {"trials": 2, "space": {"train.learning_rate": {"low": 1e-5, "high": math.inf}}}},
            r"finite numbers",
        ),
        ({"resources": {"cpus": math.inf}, "seeds": [0]}, r"resources.cpus: found inf, expected a finite number"),
        ({"axes": {"train.learning_rate": [math.nan]}}, r"train.learning_rate: found nan, expected a finite number"),
        ({"search": {"trials": 2, "space": {"train.rank": {"low": 0, "high": 2, "log": True}}}}, r"both above 0"),
        ({"search": {"trials": 2, "space": SPACE}, "seeds": [0, 1]}, r"seeds: found 2, expected at most one"),
        ({"axes": {"monitor.grid.steps": [2, 3]}}, r"monitor.grid.steps: one grid for all"),
        ({"axes": {"data.resolution": [64, 128]}}, r"data.resolution: it changes the size of the grid's images"),
        ({"people": {"ana": {"monitor.metrics.aesthetic": None}}}, r"monitor.metrics.aesthetic: one set of metrics"),
        ({"set": {"output_dir": "x"}, "seeds": [0]}, r"set: output_dir: the sweep's own output_dir determines it"),
        ({"set": {"monitor.enabled": False}, "seeds": [0]}, r"a trial without evaluations cannot be compared"),
        ({"set": {"train.rank": 1}, "axes": {"train.rank": [1]}}, r"train.rank: found in set and in axes"),
        ({"seeds": [0], "axes": {"seed": [1]}}, r"seed: found in axes and in seeds"),
        ({"axes": {"train.rank": [0, 1]}}, r"rank=0: train.rank: found 0"),
        ({"axes": {"train.method": ["lora", "dora"]}}, r"method=dora: train.method: found 'dora'"),
        ({"set": {"train.max_steps": 0}, "seeds": [0, 1]}, r"base.yaml, with the sweep's settings: train.max_steps"),
        ({"axes": {"data.instance_count": [3, 4]}}, r"found 3 .*expected 4"),
        ({"axes": {"data.instance_count": [3]}, "set": {"data.held_out": 1}}, r"found 3 photos, expected 4"),
        ({"axes": {"train.rank": [1]}, "early_termination": "asho"}, r"early_termination.rule"),
        (
            {"axes": {"train.rank": [1]}, "early_termination": {"metric": "beauty"}},
            r"early_termination.metric: found 'beauty', expected one of",
        ),
        ({"search": {"trials": 2, "space": SPACE, "metric": "face_similarity_held_out"}}, r"face_similarity_held_out"),
        ({"axes": {"train.rank": [1]}, "early_termination": {"grace_steps": 6}}, r"no trial would ever be stopped"),
        ({"axes": {"seed": [0, 1]}}, r"axes: seed: use seeds"),
        ({"axes": {"data.held_out": [1, 2]}}, r"axes: data.held_out: the same photos for all"),
        ({"search": {"trials": 2, "space": {"data.held_out": [1, 2]}}}, r"search.space: data.held_out: the same"),
        ({"axes": {"train": [1]}}, r"axes: train: found an entire section.*name the keys within train"),
        ({"search": {"trials": 10, "space": {"train.rank": {"low": 4, "high": 6}}}}, r"the space has 3 combinations"),
        ({"search": {"trials": 2, "space": {"model": ["https://a:b@hub/m", "x"]}}}, r"looks like a secret"),
        ({"people": {"ana": {"train.rank": 1}, "Ana": {"train.rank": 2}}}, r"ana and Ana: found the same name for 2"),
        ({"axes": {"train.rank": [1, "1"]}}, r"rank=1 and rank=1: found the same name for 2"),
        ({"axes": {"train.rank": [1]}, "resources": {"gpus": 2}}, r"resources.gpus: found 2"),
        ({"axes": {"train.rank": [1]}, "address": "ray://head:10001"}, r"Ray's client protocol is not supported"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(plan, keys, problem):
    with pytest.raises(UserError, match=problem):
        plan(**keys)


def test_all_problems_come_at_once(plan):
    with pytest.raises(UserError) as found:
        plan(axes={"data.instance_cont": [1], "train.rank": []}, people={"ana": {}}, seeds=[1, 1])
    assert str(found.value).count("\n  - ") == 4


def test_the_command_shows_them_without_a_traceback(tmp_path, tiny_model, photos, capsys):
    path = sweeps.write_sweep(tmp_path, tiny_model, photos, axes={"train.rnk": [1]})
    assert main(["sweep", str(path)]) == 2
    assert "train.rnk: unknown key (did you mean train.rank?)" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "nowhere.yaml")]) == 2
    assert not (tmp_path / "sweep").exists()


def test_every_combination_has_its_own_whole_config(plan, photos):
    people = {"ana": {"data.instance_images": str(photos)}, "ben": {"data.instance_prompt": "ben"}}
    made = plan(axes={"data": {"instance_count": [1, 2]}}, people=people, seeds=[5, 6], set={"train": {"rank": 3}})
    assert len(made.trials) == 8
    assert made.trials[1].name == "instance_count=1_ana_seed=6"
    content = made.content(made.trials[3])
    assert (content["data"]["instance_count"], content["data"]["instance_prompt"], content["seed"]) == (1, "ben", 6)
    assert content["train"]["rank"] == 3
    assert content["output_dir"].endswith("sweep/trials/instance_count=1_ben_seed=6")


def test_overrides_reach_every_part(plan):
    made = plan("axes.train.rank=[4]", "retries=0", "set.train.max_steps=9", axes={"train.rank": [1, 2]})
    assert [trial.name for trial in made.trials] == ["rank=4"]
    assert made.content(made.trials[0])["train"]["max_steps"] == 9
    assert made.spec.retries == 0


def test_a_trial_that_has_begun_keeps_its_config(plan, tmp_path):
    first = plan(axes={"train.rank": [1, 2]})
    config = tmp_path / "sweep/configs/rank=1.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(first.config_text(first.trials[0]))
    run = tmp_path / "sweep/trials/rank=1"
    run.mkdir(parents=True)
    assert plan(axes={"train.rank": [1, 2]}, set={"train.max_steps": 7}).trials  # it failed before it had a record
    (run / "run.json").write_text("{}")
    added = plan(axes={"train.rank": [1, 2, 4]}, set={"monitor.sinks.tensorboard": {}})  # neither changes what is known
    assert len(added.trials) == 3
    with pytest.raises(
        UserError, match=r"rank=1: train.max_steps was 6, is now 7; the length of a sweep cannot change.*restore it"
    ):
        plan(axes={"train.rank": [1, 2]}, set={"train.max_steps": 7})
    assert len(plan(axes={"train.rank": [2]}, set={"train.max_steps": 7}).trials) == 1


def test_a_search_keeps_what_it_began_and_refuses_another_space(plan, tmp_path):
    name = search_name({"train.rank": 8}, None, None)
    known = SweepState(tmp_path / "sweep", {}, (TrialRecord(name, {"train.rank": 8}, attempts=2),))
    search = {"trials": 2, "space": SPACE}
    assert plan(search=search, known=known).trials == known.trials
    other = {"trials": 2, "space": {"train.rank": [1, 2]}}
    corrected = plan(search=other, known=known)  # it failed before it had a record
    assert (corrected.trials, corrected.set_aside) == ((), known.trials)
    write_trial(tmp_path / "sweep/trials" / name, {0: 0.1}, images=False)
    with pytest.raises(UserError, match=r"different search.space"):
        plan(search=other, known=known)


@pytest.mark.parametrize(
    ("trial", "name"),
    [
        (({"a.b": 1e-4}, "ana", 0), "b=0.0001_ana_seed=0"),
        (({"a.rank": 1, "b.rank": 2}, None, None), "a.rank=1_b.rank=2"),
        (({"x": None, "y": True}, None, None), "x=null_y=true"),
        (({"x": "../a b/ü"}, None, None), r"x=..-a-b-ü_[0-9a-f]{8}"),
        (({"x": "https://ana:hidden@hub/m"}, None, None), r"x=https:?-[-.\w]*redacted[-.\w]*_[0-9a-f]{8}"),
        (({}, "..", None), r"trial_[0-9a-f]{8}"),
        (({}, None, 7), "seed=7"),
    ],
)
def test_names_suit_a_file_system(trial, name):
    assert re.fullmatch(name, trial_name(*trial))


def test_names_that_were_cleaned_or_cut_are_unique_and_short():
    names = [trial_name({"x": text}, None, None) for text in ("a/b", "A b", "a-b")]
    assert names[2] == "x=a-b"
    assert not alike(names)
    assert alike(["Ana", "ben", "ana"]) == [["Ana", "ana"]]
    many = [trial_name({"x": "ü" * 300}, None, n) for n in range(2000)]
    assert len(set(many)) == 2000
    assert all(len(name.encode()) <= 120 for name in many)


def test_names_of_a_search_round_and_tell_apart():
    first, second = (search_name({"train.learning_rate": rate}, None, 3) for rate in (3.1234e-4, 3.1235e-4))
    assert first.startswith("learning_rate=0.000312_seed=3_")
    assert first != second
