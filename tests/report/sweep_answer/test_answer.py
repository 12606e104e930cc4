import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState, read_state, write_state
from finetune_monitor.report.sweep_answer.answer import find_answer, print_answer
from support import sweep_folders
from support.sweep_folders import STEPS, strict_json, with_alarms, with_trial

write_sweep = partial(sweep_folders.write_sweep, images=False)
write_trial = partial(sweep_folders.write_trial, images=False)

BY_COUNT = {1: 0.3, 2: 0.4, 4: 0.4}
BY_SEED = {0: -0.01, 1: 0.0, 2: 0.01, None: 0.0}


def score(value, person, seed, step):
    """Rises from 1 to 2 photos, then not; the middle step is best."""
    jitter = 0.002 * math.sin(7 * value + 3 * (seed or 0))
    return BY_COUNT[value] + BY_SEED[seed] + jitter - (0.1 if step != STEPS[1] else 0.0)


def verdict(answer, at="best", metric="face_similarity", group=0):
    return next(v for v in answer.verdicts if (v.metric, v.at, v.group) == (metric, at, group))


def test_the_whole_mapping_of_a_sweep_over_photos_and_seeds(tmp_path):
    answer = find_answer(write_sweep(tmp_path / "s", score))
    found = strict_json(answer.to_json())

    keys = ["name", "axis", "groups", "search", "unit", "units", "trials", "curves", "verdicts", "notes"]
    assert list(found) == keys
    expected = {"key": "data.instance_count", "label": "number of photos", "values": [1, 2, 4], "scale": "linear"}
    assert found["axis"] == expected
    assert (found["groups"], found["search"]) == ([""], False)
    assert (found["unit"], found["units"]) == ("seed", "3 training seeds")
    assert found["trials"][4] == {
        "folder": str(tmp_path / "s/trials/2-1"),
        "name": "2-1",
        "state": "finished",
        "error": None,
        "settings": {"data.instance_count": 2},
        "value": 2,
        "group": 0,
        "person": None,
        "seed": 1,
        "step": 100,
        "best_step": 50,
        "alarms": None,
    }
    best = found["curves"]["face_similarity"]["best"]
    assert [(entry["value"], entry["units"], len(entry["points"])) for entry in best] == [
        (1, 3, 3),
        (2, 3, 3),
        (4, 3, 3),
    ]
    assert best[1]["mean"] == pytest.approx(0.4, abs=0.003)
    assert best[1]["low"] < 0.39 < 0.41 < best[1]["high"]
    assert best[1]["points"][1]["step"] == 50
    last = found["curves"]["face_similarity"]["last"]
    assert last[1]["points"][1]["step"] == 100
    assert last[1]["mean"] == pytest.approx(best[1]["mean"] - 0.1)
    course = found["curves"]["face_similarity"]["steps"][0]
    assert (course["steps"], course["units"]) == ([0, 50, 100], [3, 3, 3])
    assert {v["tone"] for v in found["verdicts"] if v["metric"] == "face_similarity"} == {"rise"}


def test_the_verdict_names_where_photos_stop_to_help(tmp_path):
    text = verdict(find_answer(write_sweep(tmp_path / "s", score))).text
    assert text.startswith("from 1 to 2 photos it rises by 0.10")
    assert "; beyond 2 there is no significant change (" in text
    assert text.endswith("from 2 to 4); the best step is 50")


def test_the_interval_of_a_mean_is_students_by_hand(tmp_path):
    scores = {0: 0.30, 1: 0.34, 2: 0.41}
    state = write_sweep(tmp_path / "s", lambda value, person, seed, step: scores[seed], values=[5, 6])
    entry = find_answer(state).curves["face_similarity"].last[0]
    half = 4.302652729911275 * np.std([0.30, 0.34, 0.41], ddof=1) / math.sqrt(3)  # t(0.975, 2)
    assert (entry.mean, entry.low, entry.high) == pytest.approx((0.35, 0.35 - half, 0.35 + half))


def test_units_are_persons_first_and_their_seeds_are_averaged(tmp_path):
    level = {"ana": 0.2, "ben": 0.5}

    def by_person(value, person, seed, step):
        slope = 0.1001 if person == "ana" else 0.0999
        return level[person] + slope * value + (0.05 if seed else -0.05)

    state = write_sweep(tmp_path / "s", by_person, values=[1, 2], people=["ana", "ben"], seeds=[0, 1], spread=0)
    answer = find_answer(state)
    entry = answer.curves["face_similarity"].last[0]
    assert (answer.unit, answer.units, entry.units, len(entry.points)) == ("person", "2 people", 2, 4)
    assert entry.mean == pytest.approx(0.45)
    assert entry.high == 1.0  # two people: the interval is cut at the metric's bound
    # A person is compared with itself: that ana and ben lie apart does not hide the rise.
    assert "it rises by 0.100 [0.099, 0.101]" in verdict(answer).text


def test_a_seed_that_only_one_setting_has_is_not_compared(tmp_path):
    state = write_sweep(tmp_path / "s", lambda v, p, s, t: (0.1 + 0.0002 * s) * v + 0.2 * s, values=[1, 2], spread=0)
    state = with_trial(state, "2-2", state=TrialState.FAILED, error="out of memory")
    answer = find_answer(state)
    assert "it rises by 0.100 [0.099, 0.101]" in verdict(answer, "last").text
    assert [entry.units for entry in answer.curves["face_similarity"].last] == [3, 2]
    assert "2-2 failed: out of memory" in answer.notes


def test_one_training_a_setting_compares_the_images_of_the_same_cells(tmp_path):
    state = write_sweep(tmp_path / "s", score, seeds=[None])
    answer = find_answer(state)
    entry = answer.curves["face_similarity"].best[0]
    recorded = sweep_folders.evaluation(50, score(1, None, None, 50), 0.02).scores["face_similarity"]
    assert (answer.unit, entry.units) == ("image", 4)
    assert (entry.low, entry.high) == pytest.approx((recorded.low, recorded.high))
    assert "it rises by 0.1" in verdict(answer).text
    assert any("do not cover how another training run" in note for note in answer.notes)


def test_a_score_that_no_image_has_changes_without_an_interval(tmp_path):
    state = write_sweep(tmp_path / "s", score, seeds=[None])
    for path in (tmp_path / "s/trials").glob("*/run.json"):
        content = json.loads(path.read_text())
        content["columns"]["face_similarity"]["over"] = "run"
        path.write_text(json.dumps(content))
    assert "it is 0.099 higher, but has no interval and may be chance" in verdict(find_answer(state)).text


def test_trials_that_go_on_are_in_the_curves_alone(tmp_path):
    state = write_sweep(tmp_path / "s", score)
    state = with_trial(state, "4-0", state=TrialState.RUNNING)
    state = with_trial(state, "4-1", state=TrialState.WAITING)
    shutil.rmtree(tmp_path / "s/trials/4-1")
    answer = find_answer(state)
    assert [entry.units for entry in answer.curves["face_similarity"].best] == [3, 3, 1]
    assert answer.curves["face_similarity"].best[2].low != answer.curves["face_similarity"].best[2].low  # NaN: one unit
    assert answer.curves["face_similarity"].steps[2].units == (2, 2, 2)
    assert strict_json(answer.to_json())["curves"]["face_similarity"]["best"][2]["low"] is None
    assert any(note.startswith("2 of 9 trials have not ended") for note in answer.notes)
    assert "it is 0.00077 lower, but has no interval" in verdict(answer).text


def test_units_that_have_nothing_yet_are_not_counted(tmp_path):
    state = write_sweep(tmp_path / "s", score, values=[1, 2])
    for name in ("1-1", "2-1", "1-2", "2-2"):
        state = with_trial(state, name, state=TrialState.WAITING)
    answer = find_answer(state)
    assert answer.units == "1 of 3 training seeds so far"
    assert any("1 of 3 training seeds so far are few" in note for note in answer.notes)


def test_after_the_end_nothing_is_said_to_be_so_far(tmp_path, capsys):
    state = write_sweep(tmp_path / "s", score, values=[1, 2], seeds=[0, 1])
    for name in ("1-0", "1-1", "2-1"):
        shutil.rmtree(tmp_path / "s/trials" / name)
        state = with_trial(state, name, state=TrialState.FAILED, error="out of memory")
    answer = find_answer(state)
    assert answer.units == "1 of 2 training seeds"
    assert verdict(answer).text == "there is a score only for 2 photos; the best step is 50"
    shutil.rmtree(tmp_path / "s/trials/2-0")
    print_answer(find_answer(with_trial(state, "2-0", state=TrialState.FAILED, error="out of memory")))
    said = capsys.readouterr().out
    assert "nothing was measured" in said
    assert "so far" not in said
    assert "yet" not in said


def test_the_note_on_a_failed_trial_holds_the_first_problem(tmp_path):
    state = write_sweep(tmp_path / "s", score, values=[1, 2])
    error = "the run cannot start:\n  - model: no such folder\n  - more"
    answer = find_answer(with_trial(state, "1-0", state=TrialState.FAILED, error=error))
    assert "1-0 failed: the run cannot start: model: no such folder" in answer.notes


def test_a_loss_that_is_not_finite_is_told_once(tmp_path):
    state = write_sweep(tmp_path / "s", score)
    shutil.rmtree(tmp_path / "s/trials/1-0")
    write_trial(tmp_path / "s/trials/1-0", {0: 0.2, 50: 0.3}, reason=StopReason.NOT_FINITE)
    answer = find_answer(with_trial(state, "1-0", state=TrialState.FAILED, error="the loss was not finite"))
    assert [note for note in answer.notes if "finite" in note] == ["1-0 failed: the loss was not finite"]


def test_a_trial_stopped_for_lagging_counts_at_its_best_step_only(tmp_path):
    state = write_sweep(tmp_path / "s", score)
    shutil.rmtree(tmp_path / "s/trials/1-0")
    write_trial(tmp_path / "s/trials/1-0", {0: 0.2, 50: 0.3})
    answer = find_answer(with_trial(state, "1-0", state=TrialState.STOPPED_EARLY))
    curves = answer.curves["face_similarity"]
    assert (curves.best[0].units, curves.last[0].units) == (3, 2)
    assert curves.steps[0].units == (3, 3, 2)
    assert any("stopped early for lagging behind" in note for note in answer.notes)


def test_a_trial_that_its_own_rule_ended_counts_at_its_last_step(tmp_path):
    state = write_sweep(tmp_path / "s", score)
    shutil.rmtree(tmp_path / "s/trials/1-0")
    write_trial(tmp_path / "s/trials/1-0", {0: 0.2, 50: 0.3}, reason=StopReason.PATIENCE)
    answer = find_answer(state)
    assert answer.curves["face_similarity"].last[0].units == 3
    assert any("ended at different steps" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda run: shutil.rmtree(run), "found no run.json"),
        (lambda run: (run / "run.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "run.json").write_text('{"metrics": {"face_similarity": {}}}'), "damaged"),
        (lambda run: (run / "images.jsonl").write_text('{"step": 0, "sco'), "truncated"),
        (lambda run: (run / "evaluations.jsonl").write_text("x\n" * 3), "damaged"),
    ],
)
def test_damaged_run_directories_are_named_and_the_rest_is_answered(tmp_path, damage, note):
    state = write_sweep(tmp_path / "s", score)
    damage(tmp_path / "s/trials/2-1")
    answer = find_answer(state)
    assert any("2-1" in each and note in each for each in answer.notes), answer.notes
    assert [entry.units for entry in answer.curves["face_similarity"].best][::2] == [3, 3]
    assert verdict(answer).tone == "rise"


def test_what_was_not_measured_is_not_zero(tmp_path):
    def faceless(value, person, seed, step):
        return math.nan if value == 1 and seed == 0 else 0.5

    answer = find_answer(write_sweep(tmp_path / "s", faceless, values=[1, 2]))
    entry = answer.curves["face_similarity"].best[0]
    assert (entry.mean, entry.units) == (pytest.approx(0.5), 2)
    assert any("1-0: face_similarity could not be measured" in note for note in answer.notes)
    assert strict_json(answer.to_json())["trials"][0]["best_step"] is None


@pytest.mark.parametrize("trials", [(), (TrialRecord("a", {"train.rank": 4}), TrialRecord("b", {"train.rank": 8}))])
def test_a_sweep_with_nothing_yet(tmp_path, trials, capsys):
    state = SweepState(tmp_path, {"axes": {"train.rank": [4, 8]}}, trials)
    write_state(state)
    answer = find_answer(read_state(tmp_path))
    assert (answer.curves, answer.verdicts) == ({}, ())
    print_answer(answer)
    assert "nothing to report yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 3, 5], "linear"), ([1, 2, 8], "log"), ([0, 5, 50], "linear"), ([4, "8", None], "category")],
)
def test_the_scale_of_an_axis(tmp_path, values, scale):
    trials = tuple(TrialRecord(str(i), {"train.rank": value}) for i, value in enumerate(values))
    axis = find_answer(SweepState(tmp_path, {"axes": {"train.rank": values}}, trials)).axis
    assert (axis.label, axis.scale) == ("rank", scale)
    assert axis.values == (("4", "8", "null") if scale == "category" else tuple(values))


def test_further_axes_make_groups(tmp_path):
    folder = tmp_path / "s"
    trials = []
    for rank in (4, 8):
        for count in (1, 2):
            for seed in (0, 1):
                name = f"{count}-{rank}-{seed}"
                settings = {"data.instance_count": count, "train.rank": rank}
                trials.append(TrialRecord(name, settings, None, seed, TrialState.FINISHED))
                write_trial(folder / "trials" / name, {0: 0.1, 50: (0.1 + seed / 1000) * count if rank == 8 else 0.2})
    axes = {"data.instance_count": [1, 2], "train.rank": [4, 8]}
    answer = find_answer(SweepState(folder, {"axes": axes}, tuple(trials)))
    assert answer.groups == ("train.rank=4", "train.rank=8")
    assert [(entry.group, entry.value) for entry in answer.curves["face_similarity"].best] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    assert [verdict(answer, group=group).tone for group in (0, 1)] == ["none", "rise"]


def test_an_axis_with_one_value_leaves_the_place_to_one_that_varies():
    settings = [{"train.rank": 4, "train.learning_rate": rate, "train.method": "lora"} for rate in (1e-4, 1e-3)]
    trials = tuple(TrialRecord(str(number), found) for number, found in enumerate(settings))
    axes = {"train.rank": [4], "train.learning_rate": [1e-4, 1e-3], "train.method": ["lora"]}
    answer = find_answer(SweepState(Path("s"), {"axes": axes}, trials))
    assert (answer.axis.key, answer.groups) == ("train.learning_rate", ("",))


def test_a_search_names_the_best_setting_and_what_may_be_as_good(tmp_path):
    rates = {"a": (1e-4, 0.5, 0.01), "b": (3e-4, 0.7, 0.02), "c": (5e-4, 0.699, -0.02)}
    trials = []
    for name, (rate, found, spread) in rates.items():
        settings = {"train.learning_rate": rate, "train.rank": 8}
        trials.append(TrialRecord(name, settings, None, None, TrialState.FINISHED))
        write_trial(tmp_path / "trials" / name, {0: 0.1, 50: found}, spread=spread)
    space = {"train.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "train.rank": [4, 8]}
    answer = find_answer(SweepState(tmp_path, {"search": {"space": space}}, tuple(trials)))
    assert (answer.axis.key, answer.axis.scale, answer.groups, answer.unit) == (
        "train.learning_rate",
        "log",
        ("",),
        "image",
    )
    assert answer.search
    assert answer.to_json()["trials"][1]["settings"] == {"train.learning_rate": 3e-4, "train.rank": 8}
    text = verdict(answer).text
    assert text.startswith(
        "learning rate 0.0003, rank 8 is best (0.700); its lead over learning rate 0.0005, rank 8, 0.00"
    )
    assert text.endswith("is not significant; 1 of 2 others are not significantly worse")


def test_a_sweep_over_seeds_alone_says_how_high_the_score_is(tmp_path):
    trials = []
    for seed, found in enumerate((0.3, 0.4, 0.5)):
        trials.append(TrialRecord(f"seed-{seed}", {}, None, seed, TrialState.FINISHED))
        write_trial(tmp_path / f"trials/seed-{seed}", {0: 0.1, 50: found})
    answer = find_answer(SweepState(tmp_path, {"axes": {}, "search": None}, tuple(trials)))
    assert (answer.axis.label, answer.axis.values, answer.unit) == ("setting", ("all trials",), "seed")
    assert verdict(answer).text == "it is 0.40 [0.15, 0.65]"  # 4.303 * 0.1 / sqrt(3)


@pytest.mark.parametrize("held_out", [True, False])
def test_the_notes_say_what_likeness_is_compared_with(tmp_path, monkeypatch, held_out):
    name, photos = "face_similarity_held_out", [{"file": "x", "sha256": "ab" * 32}] * 2
    run = sweep_folders.runs.RUN
    weights = {"face_similarity": {**run["weights"]["face_similarity"], "references": photos}}
    told: dict = {"weights": weights}
    if held_out:
        described = FaceSimilarity.columns.items()
        weights["face_similarity"]["held_out"] = photos
        told["metrics"] = {**run["metrics"], name: run["metrics"]["face_similarity"]}
        told["columns"] = {key: replace(each, metric="face_similarity").to_json() for key, each in described}
    monkeypatch.setattr(sweep_folders.runs, "RUN", {**run, **told})
    notes = find_answer(write_sweep(tmp_path / "s", score)).notes
    expected = f"{name} compares with the same 2 for all" if held_out else "with data.held_out, every run would also be"
    assert any("which differ for each number of photos" in note and expected in note for note in notes)


def test_the_console_gets_verdicts_and_notes_without_markup(tmp_path, capsys):
    state = write_sweep(tmp_path / "[red]s", score)
    print_answer(find_answer(with_trial(state, "4-2", state=TrialState.FAILED, error="[bold]\x1b[31mboom")))
    printed = capsys.readouterr().out
    assert "face_similarity, best step: from 1 to 2 photos it rises" in printed
    assert "[red]s" in printed
    assert "4-2 failed: [bold]\ufffd[31mboom" in printed


def test_a_trial_in_which_an_alarm_sounds_has_a_note(tmp_path, capsys):
    state = write_sweep(tmp_path / "s", score)
    with_alarms(state, "1-0", {50: ["copying"], 100: ["copying", "leakage"]})
    with_alarms(state, "1-1", {50: ["leakage"], 0: ["copying"]})
    answer = find_answer(state)
    words = {trial["name"]: trial["alarms"] for trial in answer.trials if trial["alarms"]}
    assert words == {"1-0": "copying, leakage (last step)", "1-1": "leakage (best step)"}
    assert "1-0: alarms: copying, leakage (last step)" in answer.notes
    assert not any("alarms sound" in verdict.text for verdict in answer.verdicts if verdict.metric == "face_similarity")
    print_answer(answer)
    assert "- 1-1: alarms: leakage (best step)" in capsys.readouterr().out


def test_a_verdict_warns_of_the_alarms_where_the_score_is_best(tmp_path):
    state = write_sweep(tmp_path / "s", score, values=[1, 2])
    for name in ("2-0", "2-2"):
        with_alarms(state, name, {50: ["copying"]})
    with_alarms(state, "1-0", {100: ["leakage"]})
    answer = find_answer(state)
    assert verdict(answer).text.endswith(
        "; the best step is 50; but alarms sound where it is best (number of photos 2): copying in 2 of 3 trials"
    )
    assert "alarms" not in verdict(answer, "last").text, "at the last step none sounds there"


def test_a_search_that_names_a_setting_as_best_says_that_its_alarm_sounds(tmp_path):
    trials = []
    for name, found in (("a", 0.5), ("b", 0.9)):
        trials.append(TrialRecord(name, {"train.rank": ord(name)}, None, None, TrialState.FINISHED))
        write_trial(tmp_path / "trials" / name, {0: 0.1, 50: found})
    state = SweepState(tmp_path, {"search": {"space": {"train.rank": [97, 98]}}}, tuple(trials))
    assert "alarms" not in verdict(find_answer(with_alarms(state, "a", {50: ["copying"]}))).text
    text = verdict(find_answer(with_alarms(state, "b", {50: ["copying"]}))).text
    assert text.startswith("rank 98 is best (0.900)")
    assert text.endswith("; but alarms sound where it is best: copying")


def test_a_sweep_without_an_axis_says_how_many_of_its_trials_sound_alarms(tmp_path):
    trials = []
    for seed in (0, 1):
        trials.append(TrialRecord(f"seed-{seed}", {}, None, seed, TrialState.FINISHED))
        write_trial(tmp_path / f"trials/seed-{seed}", {0: 0.1, 50: 0.3})
    state = with_alarms(SweepState(tmp_path, {"axes": {}, "search": None}, tuple(trials)), "seed-1", {50: ["leakage"]})
    assert verdict(find_answer(state)).text.endswith("; but alarms sound: leakage in 1 of 2 trials")
