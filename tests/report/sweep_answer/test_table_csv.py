import csv

import pytest

from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState
from finetune_monitor.report.sweep_answer.answer import find_answer
from finetune_monitor.report.sweep_answer.results import read_results
from finetune_monitor.report.sweep_answer.table_csv import TABLE, write_csv
from support.sweep_folders import strict_json, with_alarms, with_trial, write_sweep


def rows(folder):
    with (folder / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_row_an_evaluation(tmp_path):
    state = write_sweep(tmp_path, lambda value, person, seed, step: 0.01 * step, people=["ana, b"], seeds=[3])
    write_csv(read_results(state), tmp_path)
    found = rows(tmp_path)
    assert list(found[0])[:8] == ["trial", "data.instance_count", "person", "seed", "state", "step", "epoch", "best"]
    assert len(found) == 9
    row = found[5]
    assert (row["trial"], row["data.instance_count"], row["person"], row["seed"]) == ("2-ana, b-3", "2", "ana, b", "3")
    assert (row["step"], row["epoch"], row["best"], row["state"]) == ("100", "10.0", "1", "finished")
    assert float(row["face_similarity"]) == pytest.approx(1.0)
    assert (row["face_similarity_n"], row["face_similarity_missing"], row["faces_found"]) == ("4", "0", "1.0")
    assert "faces_found_low" not in row
    assert [each["best"] for each in found[:3]] == ["0", "0", "1"]


def test_what_is_not_there_is_empty(tmp_path):
    state = write_sweep(tmp_path, lambda value, person, seed, step: float("nan"), seeds=[0], values=[1, 2])
    state = with_trial(state, "2-0", state=TrialState.RUNNING)
    waiting = TrialRecord("4-0", {"data.instance_count": 4}, None, 0)
    write_csv(read_results(SweepState(tmp_path, state.config, (*state.trials, waiting))), tmp_path)
    found = rows(tmp_path)
    assert (found[0]["face_similarity"], found[0]["face_similarity_n"]) == ("", "0")
    assert (found[-1]["trial"], found[-1]["state"], found[-1]["step"]) == ("4-0", "waiting", "")


def test_a_sweep_without_trials_has_a_header(tmp_path):
    write_csv(read_results(SweepState(tmp_path, {"axes": {"train.rank": [4]}}, ())), tmp_path)
    assert (tmp_path / TABLE).read_text() == "trial\n"
    assert strict_json(find_answer(SweepState(tmp_path, {}, ())).to_json())["trials"] == []


def test_an_evaluation_names_its_alarms(tmp_path):
    state = write_sweep(tmp_path, lambda value, person, seed, step: 0.01 * step, seeds=[0], values=[1])
    write_csv(read_results(with_alarms(state, "1-0", {100: ["copying", "leakage"]})), tmp_path)
    assert [row["alarms"] for row in rows(tmp_path)] == ["", "", "copying, leakage"]
