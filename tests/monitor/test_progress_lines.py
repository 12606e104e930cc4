"""What an evaluation prints: short lines with the score that decides first, and each alarm explained once."""

from dataclasses import replace

import pytest

from finetune_monitor.monitor.progress_lines import evaluation_lines
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason
from support.runs import ALARMED, CEILING, COLUMNS, evaluation


@pytest.fixture(autouse=True)
def width(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def lines(*history: Evaluation, columns=COLUMNS, best: str = "face_similarity") -> list[str]:
    return list(evaluation_lines(history, columns, {"face_similarity": CEILING}, best, 12.34, 37.66))


def test_the_score_that_decides_comes_first_and_what_explains_it_is_left_to_the_record():
    first, second = lines(evaluation(0, 0.1))
    assert first.startswith("step 0: face_similarity 0.115 [")
    assert second == "        aesthetic 5.000 [5.000, 5.000], evaluated in 12.3 s"
    way, others = lines(evaluation(0, 0.1), evaluation(300, 0.5))
    assert way.startswith("step 300: face_similarity 0.515 [")
    assert way.endswith("] of the way from the base model to your photos")
    assert others.endswith("evaluated in 12.3 s, 25% of the time since the last one")
    assert lines(evaluation(300))[-1].endswith("evaluated in 12.3 s")


def test_missing_images_are_counted():
    assert "face_similarity 0.505 [" in lines(evaluation(0, 0.5, faces=2))[0]
    assert "(2 of 4 images)" in lines(evaluation(0, 0.5, faces=2))[0]
    assert lines(evaluation(0, faces=0))[0] == "step 0: face_similarity not measured"


@pytest.mark.parametrize("columns", [80, 100])
def test_lines_are_as_wide_as_the_terminal_and_break_no_interval(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    many = {f"score_{index}": COLUMNS["aesthetic"] for index in range(9)}
    score = evaluation(0).scores["face_similarity"]
    found = lines(replace(evaluation(300), scores=dict.fromkeys(many, score)), columns=many, best="score_3")
    assert all(len(line) <= columns for line in found)
    assert all(line.count("[") == line.count("]") for line in found)
    assert found[0].startswith("step 300: score_3 ")
    assert sum(line.count("score_") for line in found) == len(many)


def test_an_alarm_is_explained_when_it_starts():
    sounding = [replace(evaluation(step), alarms=("aesthetic",)) for step in (100, 200)]
    text = "ALARM: aesthetic is 5.000 [5.000, 5.000], below 5.5: the images are ugly"
    assert lines(evaluation(0), sounding[0], columns=ALARMED)[-1] == f"step 100: {text}"
    assert (
        lines(*sounding, columns=ALARMED)[-1] == "step 200: ALARM again: aesthetic is 5.000 [5.000, 5.000], below 5.5"
    )


def test_a_stop_says_why():
    stopped = replace(evaluation(300), decision=Decision(True, StopReason.PLATEAU, 300))
    assert lines(evaluation(0), stopped)[-1] == "step 300: stopping, the score no longer rises"
