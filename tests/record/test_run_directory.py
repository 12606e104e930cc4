"""The run directory: complete rows only, whatever happened to the files."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.redaction import REDACTED, redacted
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import lock
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.stats.estimate import plain
from support.runs import GRID, NOTICE, RUN, evaluation, images, write_run


def begun(folder: Path, resume_step: int | None = None, run: dict = RUN) -> RunRecord:
    record = RunRecord(folder, GRID)
    record.begin(run, None, resume_step)
    return record


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(found: Evaluation, expected: Evaluation) -> bool:
    """Equality in which NaN equals NaN."""
    return repr(found) == repr(expected)


def test_what_was_written_is_read_back(tmp_path):
    expected = replace(evaluation(300, faces=2), decision=Decision(True, StopReason.PATIENCE, 0))
    with_nan = evaluation(0, faces=0)
    record = begun(tmp_path)
    record.append(with_nan)
    record.append(expected)
    assert [same(*pair) for pair in zip(read_run(tmp_path).evaluations, (with_nan, expected), strict=True)] == [
        True
    ] * 2
    assert read_run(tmp_path).notices == (NOTICE,)
    record.close()
    resumed = begun(tmp_path, resume_step=300)
    assert [same(*pair) for pair in zip(resumed.evaluations, (with_nan, expected), strict=True)] == [True, True]
    resumed.close()


def test_the_files_keep_the_contract(tmp_path):
    record = begun(tmp_path)
    record.append(evaluation(0, faces=0))
    record.close()
    [row] = rows(tmp_path / "evaluations.jsonl")
    assert {"step", "epoch", "wall_time", "scores", "seconds", "decision"} <= row.keys()
    assert row["scores"]["face_similarity"] == {"mean": None, "low": None, "high": None, "n": 0, "missing": 4}
    no_decision = {"stop": False, "reason": None, "best_step": None, "detail": ""}
    assert row["decision"] == {**no_decision, "best_score": None, "rejected_from": None}
    image = rows(tmp_path / "images.jsonl")[3]
    assert (image["cell"], image["seed"], image["sampler"], image["steps"]) == ("p01-s7", 7, GRID.sampler, 3)
    assert image["scores"]["face_similarity"] is None
    assert image["prompt"] == GRID.prompts[1]
    assert json.loads((tmp_path / "run.json").read_text())["grid"]["fingerprint"] == GRID.fingerprint()


def test_images_are_stored_exactly_and_say_how_they_were_made(tmp_path):
    record = begun(tmp_path)
    files = record.write_images(300, images(missing=(1,)))
    record.close()
    assert files == [
        "images/step-000300/p00-s0.png",
        None,
        "images/step-000300/p01-s0.png",
        "images/step-000300/p01-s7.png",
    ]
    with Image.open(tmp_path / files[3]) as found:
        assert found.tobytes() == images()[3].tobytes()
        assert found.info["finetune_monitor.prompt"] == GRID.prompts[1]
        assert found.info["finetune_monitor.seed"] == "7"
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["step-000300"]


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    with pytest.raises(UserError, match=r"2 evaluations \(the last at step 300\).*choose another output_dir"):
        begun(tmp_path)
    begun(tmp_path, resume_step=300).close()  # the refusal has given the lock back


def test_a_run_that_died_before_its_first_evaluation_is_no_obstacle(tmp_path):
    record = begun(tmp_path)
    record.write_images(0, images())
    record.close()
    row = json.dumps({"step": 0})
    (tmp_path / "evaluations.jsonl").write_text(row[:5])
    with pytest.warns(RuntimeWarning, match="truncated"):
        begun(tmp_path).close()
    assert (tmp_path / "evaluations.jsonl").read_bytes() == b""
    assert list((tmp_path / "images").iterdir()) == []


def test_resume_rewinds_to_the_checkpoint(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.2, 600: 0.3})
    record = begun(tmp_path, resume_step=450)
    assert [found.step for found in record.evaluations] == [0, 300]
    record.append(evaluation(600, 0.9))
    record.close()
    assert [row["step"] for row in rows(tmp_path / "evaluations.jsonl")] == [0, 300, 600]
    assert [row["step"] for row in rows(tmp_path / "images.jsonl")] == [0] * 4 + [300] * 4 + [600] * 4
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["step-000000", "step-000300"]


def test_steps_only_grow(tmp_path):
    record = begun(tmp_path)
    record.append(evaluation(300))
    with pytest.raises(ValueError, match="step 300 comes after step 300"):
        record.append(evaluation(300))
    record.close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"weights": {"face_similarity": {"recognizer": "casia-webface"}}},
            'is "vggface2", the config says "casia-webface"',
        ),
        ({"metrics": {"aesthetic": {"higher_is_better": True, "bounds": (1.0, 10.0)}}}, "metrics.face_similarity is"),
        ({"pipeline": {"name_or_path": "other"}}, "pipeline is null, the config says"),
    ],
)
def test_resume_with_other_metrics_is_refused(tmp_path, changed, message):
    write_run(tmp_path, {0: 0.1})
    with pytest.raises(UserError, match=message) as error:
        begun(tmp_path, resume_step=0, run={**RUN, **changed})
    assert str(tmp_path) in str(error.value)
    assert "choose a new output_dir" in str(error.value)


def test_resume_with_another_grid_is_refused(tmp_path):
    write_run(tmp_path, {0: 0.1})
    other = PromptGrid(["another prompt"], seeds=(0, 7), steps=3)
    record = RunRecord(tmp_path, other)
    with pytest.raises(UserError) as error:
        record.begin(RUN, None, 0)
    for part in (GRID.fingerprint()[:4], other.fingerprint()[:4], "prompts"):
        assert part in str(error.value)
    assert "seeds" not in str(error.value)


def test_a_new_notice_is_no_reason_to_refuse(tmp_path):
    write_run(tmp_path, {0: 0.1})
    begun(tmp_path, 0, {**RUN, "weights": {"face_similarity": {"recognizer": "vggface2"}}}).close()


def test_resume_without_a_record_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"found no run\.json"):
        begun(tmp_path, resume_step=300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(truncated|image rows):RuntimeWarning")
@pytest.mark.parametrize("name", ["evaluations.jsonl", "images.jsonl"])
def test_a_file_cut_at_any_byte_reads_as_the_evaluations_before(tmp_path, name):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    path = tmp_path / name
    whole = path.read_bytes()
    start = sum(len(line) for line in whole.splitlines(True) if json.loads(line)["step"] == 0)
    for cut in range(start, len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = [found.step for found in read_run(tmp_path).evaluations]
        assert found == ([0, 300] if cut >= len(whole) - 1 else [0])  # the newline alone may be missing


@pytest.mark.filterwarnings("ignore:.*(truncated|image rows):RuntimeWarning")
@pytest.mark.parametrize("missing", [0, 1, 2, 150])
@pytest.mark.parametrize("name", ["evaluations.jsonl", "images.jsonl"])
def test_a_cut_file_is_repaired_on_resume(tmp_path, name, missing):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size - missing])
    record = begun(tmp_path, resume_step=300)
    record.append(evaluation(600))
    record.close()
    kept = [0, 300, 600] if missing < 2 else [0, 600]
    assert [row["step"] for row in rows(tmp_path / "evaluations.jsonl")] == kept
    assert [row["step"] for row in rows(tmp_path / "images.jsonl")] == [step for step in kept for _ in range(4)]


@pytest.mark.filterwarnings("ignore:.*image rows:RuntimeWarning")
@pytest.mark.parametrize("steps", [(0,), (0, 300, 600)])
@pytest.mark.parametrize("name", ["evaluations.jsonl", "images.jsonl"])
def test_a_record_without_one_of_its_files_is_not_resumed(tmp_path, name, steps):
    write_run(tmp_path, dict.fromkeys(steps, 0.2))
    (tmp_path / name).unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if name == "evaluations.jsonl" and steps == (0,):  # as a crash during the first evaluation leaves it
        begun(tmp_path, resume_step=0).close()
        return
    with pytest.raises(UserError, match=r"evaluations\.jsonl and images\.jsonl do not match: step 0"):
        begun(tmp_path, resume_step=steps[-1])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_torn_line_is_said(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    path = tmp_path / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(RuntimeWarning, match=r"evaluations\.jsonl:2: the last line is truncated"):
        assert [found.step for found in read_run(tmp_path).evaluations] == [0]


@pytest.mark.parametrize("damage", [b"{]\n", b"\x00\xff\n", b'{"step": 0}\n', b"[1]\n"])
@pytest.mark.parametrize("name", ["evaluations.jsonl", "images.jsonl"])
def test_damage_before_the_end_is_an_error_with_its_line(tmp_path, name, damage):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    path = tmp_path / name
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(damage.join([lines[0], b"".join(lines[1:])]))
    with pytest.raises(UserError, match=rf"{name}:2: damaged row"):
        begun(tmp_path, resume_step=300)


def test_image_rows_without_an_evaluation_do_not_count(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.2})
    path = tmp_path / "evaluations.jsonl"
    path.write_bytes(path.read_bytes().splitlines(True)[0])
    record = begun(tmp_path, resume_step=300)
    record.append(evaluation(300, 0.7))
    record.close()
    found = read_run(tmp_path).evaluations[1].images
    assert [image.scores["face_similarity"] for image in found] == [0.7, 0.71, 0.72, 0.73]
    assert len(rows(tmp_path / "images.jsonl")) == 8


def test_a_full_disk_leaves_no_torn_row_between_whole_ones(tmp_path):
    record = begun(tmp_path)
    record.append(evaluation(0))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "images.jsonl").stat().st_size + 100, limit[1]))
        with pytest.raises(OSError, match="File too large"):
            record.append(evaluation(300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    record.append(evaluation(600))
    record.close()
    assert [found.step for found in read_run(tmp_path).evaluations] == [0, 600]


HOLDER = """
import sys, time
from pathlib import Path
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.run_record import RunRecord
record = RunRecord(Path(sys.argv[1]), PromptGrid(["a"]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_the_second_run_in_a_directory_names_the_first_and_a_killed_one_frees_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"{tmp_path}: in use by the run with PID {holder.pid};"):
            RunRecord(tmp_path, GRID)
        holder.kill()
    RunRecord(tmp_path, GRID).close()


def test_close_frees_the_directory_and_may_be_repeated(tmp_path):
    first = RunRecord(tmp_path, GRID)
    with pytest.raises(UserError, match=f"PID {os.getpid()}"):
        lock(tmp_path)
    first.close()
    second = RunRecord(tmp_path, GRID)
    first.close()
    with pytest.raises(UserError):
        lock(tmp_path)
    second.close()


def test_the_end_is_noted(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.4}, StopReason.MAX_STEPS)
    assert read_run(tmp_path).run["ended"] == {
        "step": 300,
        "reason": "max_steps",
        "detail": "",
        "best_metric": "face_similarity",
        "best_step": 300,
        "best_score": None,
    }
    begun(tmp_path, resume_step=300).close()
    assert "ended" not in read_run(tmp_path).run


@pytest.mark.parametrize(
    "values",
    [
        {"token": "CANARY"},
        {"hub.token": "CANARY", "wandb_api_key": "CANARY"},
        {"a": {"b": [{"password": "CANARY"}]}},
        {"argv": ["train.py", "hub.token=CANARY", "--api-key=CANARY"]},
        {"url": "https://me:CANARY@example.org/x"},
        {"note": "use hf_CANARYCANARYCANARYCANARY"},
    ],
)
def test_secrets_are_taken_out(tmp_path, values):
    assert "CANARY" not in json.dumps(redacted(values))
    assert REDACTED in json.dumps(redacted(values))
    record = RunRecord(tmp_path, GRID)
    record.begin({**RUN, **values}, json.dumps(values), None)
    record.close()
    assert not [path for path in tmp_path.iterdir() if "CANARY" in path.read_text()]


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer": "clip", "max_token_length": 77, "train.rank": 4},
        {"prompts": ["the secret garden: a token of love"], "token": None},
        {"model": "runs/a", "homepage": "https://example.org/a@b"},
    ],
)
def test_what_is_no_secret_stays(values):
    assert redacted(values) == values


def test_a_config_without_secrets_is_kept_to_the_letter(tmp_path):
    text = "# comment\nmodel: a   # b\n"
    record = RunRecord(tmp_path, GRID)
    record.begin(RUN, text, None)
    record.close()
    assert (tmp_path / "config.yaml").read_text() == text


def test_plain_values():
    assert plain({"a": (1, math.nan, math.inf), 2: Path("x"), "r": StopReason.PATIENCE}) == {
        "a": [1, None, None],
        "2": "x",
        "r": "patience",
    }


def test_reading_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"found no run\.json, expected a run directory"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: not valid JSON"):
        read_run(tmp_path)


def test_a_file_name_that_is_no_text_is_recorded_and_read_back_as_it_was(run_folder):
    photo = os.fsdecode(b"photos/\xff.png")
    record = RunRecord(run_folder, GRID)
    record.begin({**RUN, "weights": {"face_similarity": {"references": [{"file": photo}]}}}, None, None)
    record.close()
    assert read_run(run_folder).run["weights"]["face_similarity"]["references"][0]["file"] == photo
