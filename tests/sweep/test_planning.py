"""What a sweep remembers when its config changes between two commands, and what it never writes down."""

import stat

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState, read_state, write_state
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.sweep.trials.naming import search_name
from finetune_monitor.training.config import load_config
from support import sweeps
from support.sweep_folders import write_trial

SECRET = "hf_" + "a" * 30


@pytest.fixture
def plan(tmp_path, tiny_model, photos):
    """The plan of a sweep's keys, from a file on the disk; `known` is what an earlier command left."""

    def made(*overrides, known=None, **keys):
        path = sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)
        return make_plan(load_sweep(path, overrides), known)

    return made


def names(trials):
    return [trial.name for trial in trials]


def begin(plan, trial):
    """What a trial that has begun leaves."""
    plan.write_config(trial)
    run = plan.folder / "trials" / trial.name
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")


RANKS = {"train.rank": [2, 4]}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"axes": RANKS}, "best"),
        ({"axes": RANKS, "set": {"monitor.keep": "all"}}, "all"),
        ({"axes": {"monitor.keep": ["last 2"]}}, "last 2"),
    ],
)
def test_a_trial_keeps_the_best_weights_unless_it_is_told_otherwise(plan, changes, kept):
    made = plan(**changes)
    assert [made.validated(trial).monitor.keep for trial in made.trials] == [kept] * len(made.trials)


def test_what_is_taken_off_an_axis_is_set_aside_and_comes_back(plan, tmp_path):
    known = TrialRecord("rank=2", {"train.rank": 2}, state=TrialState.STOPPED_EARLY, attempts=2, seconds=9.0)
    write_trial(tmp_path / "sweep/trials/rank=2", {0: 0.1}, images=False)
    first = SweepState(tmp_path / "sweep", {}, (TrialRecord("rank=1", {"train.rank": 1}), known))

    fewer = plan("axes.train.rank=[1]", axes={"train.rank": [1, 2]}, known=first)
    assert (names(fewer.trials), fewer.set_aside) == (["rank=1"], (known,))
    ledger = Ledger(fewer.folder, {}, fewer.trials, fewer.set_aside)
    assert names(ledger) == ["rank=1"]

    left = read_state(fewer.folder)
    assert (names(left.trials), left.set_aside) == (["rank=1"], (known,))
    again = plan(axes={"train.rank": [1, 2]}, known=left)
    assert (again.trials[1], again.set_aside) == (known, ())


def test_what_was_never_begun_is_forgotten(plan, tmp_path):
    known = SweepState(tmp_path / "sweep", {}, (TrialRecord("rank=2", {"train.rank": 2}),))
    assert plan(axes={"train.rank": [1]}, known=known).set_aside == ()


def test_a_state_without_trials_set_aside_can_be_read(tmp_path):
    write_state(SweepState(tmp_path, {}, (TrialRecord("a", {}),)))
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace('"set_aside": []', '"more": 1'))
    assert read_state(tmp_path).set_aside == ()


def test_a_search_may_come_back_to_a_trial_that_was_set_aside(tmp_path):
    known = TrialRecord("x", {"train.rank": 1}, attempts=2)
    ledger = Ledger(tmp_path, {}, (), (known,))
    ledger.begin(TrialRecord("x", {"train.rank": 1}))
    assert (ledger["x"].attempts, ledger.state.set_aside) == (3, ())


def test_no_secret_is_written_but_into_configs_that_only_their_owner_can_read(plan):
    settings = {"model": [f"https://ana:{SECRET}@hub/m"]}
    made = plan(axes=settings, set={"data.instance_prompt": f"token={SECRET}"})
    trial = made.trials[0]
    ledger = Ledger(made.folder, made.spec.model_dump(mode="json"), made.trials)
    ledger.begin(trial)
    ledger.end(trial.name, TrialState.FAILED, f"cannot reach {trial.settings['model']}")

    assert SECRET not in trial.name
    assert SECRET not in (made.folder / "sweep.json").read_text()
    assert SECRET not in str(ledger.state)
    assert SECRET in ledger[trial.name].settings["model"]
    again = plan(axes=settings, set={"data.instance_prompt": f"token={SECRET}"}, known=read_state(made.folder))
    assert (again.trials[0].settings, again.trials[0].attempts) == (trial.settings, 1)

    made.write_config(trial)
    path = made.folder / f"configs/{trial.name}.yaml"
    assert load_config(path).model == trial.settings["model"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_person_does_not_rename_the_first(plan):
    first = plan(people={"a b": {"train.rank": 1}})
    both = plan(people={"a b": {"train.rank": 1}, "a-b": {"train.rank": 2}})
    assert both.trials[0].name == first.trials[0].name
    assert both.trials[1].name == "a-b"


def test_what_training_takes_from_a_new_config_may_change(plan):
    first = plan(axes={"train.rank": [1]})
    begin(first, first.trials[0])
    kept = {"data.workers": 0, "train.checkpoint_every": 1, "train.keep_checkpoints": 1}
    assert plan(axes={"train.rank": [1]}, set=kept).trials
    with pytest.raises(UserError, match=r"train.cache_latents was 'auto', is now 'never'"):
        plan(axes={"train.rank": [1]}, set={"train.cache_latents": "never"})


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (StopReason.MAX_STEPS, TrialState.FINISHED),
        (StopReason.NOT_FINITE, TrialState.FAILED),
        (StopReason.INTERRUPTED, TrialState.FAILED),
        (None, TrialState.FAILED),
    ],
)
def test_a_failed_trial_whose_run_has_finished_is_set_right(tmp_path, reason, state):
    write_trial(tmp_path / "trials/a", {0: 0.1, 50: 0.2}, reason=reason, images=False)
    ledger = Ledger(tmp_path, {}, (TrialRecord("a", {}, state=TrialState.FAILED, attempts=1, error="lost"),))
    assert (ledger["a"].state, ledger["a"].error) == (state, "lost" if state == TrialState.FAILED else None)


def test_trials_that_share_class_images_share_what_draws_them(plan, tmp_path):
    prior = {"train.prior_loss_weight": 1.0, "data.class_images": str(tmp_path / "class")}
    prompts = {"axes": {"data.class_prompt": ["a man", "a woman"]}}
    with pytest.raises(UserError, match=r"data.class_images: found .*class for 2 combinations of model and"):
        plan(set=prior, **prompts)
    with pytest.raises(UserError, match=r"for 2 combinations"):
        plan(set=prior, search={"trials": 2, "space": prompts["axes"]})
    assert len(plan(set={**prior, "train.prior_loss_weight": 0.0}, **prompts).trials) == 2
    own = {name: {"data.class_prompt": name, "data.class_images": str(tmp_path / name)} for name in ("man", "woman")}
    assert len(plan(set={"train.prior_loss_weight": 1.0}, people=own).trials) == 2


def test_a_space_that_becomes_a_range_refuses_what_is_no_number(plan, tmp_path):
    key = "train.snr_gamma"
    name = search_name({key: None}, None, None)
    known = SweepState(tmp_path / "sweep", {}, (TrialRecord(name, {key: None}),))
    write_trial(tmp_path / "sweep/trials" / name, {0: 0.1}, images=False)
    with pytest.raises(UserError, match=r"different search.space"):
        plan(search={"trials": 2, "space": {key: {"low": 1.0, "high": 5.0}}}, known=known)


def test_early_termination_has_something_to_stop_if_one_trial_is_long_enough(plan):
    rule = {"grace_steps": 6}
    assert plan(axes={"train.max_steps": [6, 12]}, early_termination=rule).longest == 12
    space = {"train.max_steps": [6, 12]}
    assert plan(search={"trials": 2, "space": space}, early_termination=rule).longest == 12
