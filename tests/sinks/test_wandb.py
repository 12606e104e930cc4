"""Weights & Biases: what wandb's own library finds in an offline run."""

import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from accelerate import Accelerator
from PIL import Image
from wandb.proto import wandb_internal_pb2

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import Evaluation, RunSummary, StopReason
from finetune_monitor.record.run_directory import CONTACT_SHEET
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.sinks import Sink
from finetune_monitor.sinks.accelerate import end, log, start_sinks
from finetune_monitor.sinks.wandb import WandbSink
from finetune_monitor.sinks.wandb_opening import STEP, init_arguments
from finetune_monitor.training.main import main
from support.places import ROOT
from support.runs import ALARMED, GRID, NOTICE, evaluation, images, run_info


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Everything that wandb writes goes to the test's folder."""
    ours = [name for name in os.environ if name.startswith("WANDB_") and "SERVICE" not in name]
    for name in ours:  # the others name wandb's own process, and would name a dead one when they come back
        monkeypatch.delenv(name)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def write(folder: Path, shown: list[Evaluation], sink: WandbSink | None = None, **changes) -> None:
    record = RunRecord(folder, GRID)
    sink = sink or WandbSink()
    sink.start(run_info(folder, **changes))
    for found in shown:
        record.write_images(found.step, images())
        sink.write(found, images())
    sink.close(RunSummary(tuple(shown), "face_similarity", shown[-1].step, StopReason.PATIENCE))
    record.close()


def records(folder: Path) -> list:
    """Every record of the newest offline run below `folder`."""
    path = max(folder.glob("wandb/offline-run-*/*.wandb"))
    for _ in range(100):
        found = [wandb_internal_pb2.Record.FromString(data) for data in log_entries(path.read_bytes())]
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)  # wandb's service process closes the file a moment after `finish` has returned
    raise AssertionError(f"{path} has no end")


def log_entries(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """The entries of a LevelDB log (header: CRC, length, type), which a .wandb file is after its seven first bytes."""
    position, entry = 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if position + 7 + length > len(content):  # still being written
            return
        entry += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def history(folder: Path) -> list[dict]:
    rows = [record.history for record in records(folder) if record.HasField("history")]
    return [
        {".".join([item.key, *item.nested_key]).strip("."): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def values(folder: Path, kind: str) -> dict:
    """Keys of all `config` or `summary` records, the last value of each."""
    updates = [item for record in records(folder) if record.HasField(kind) for item in getattr(record, kind).update]
    return {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in updates}


def tables(folder: Path, key: str) -> list[dict]:
    found = sorted(
        folder.glob(f"wandb/offline-run-*/files/media/table/{key}_*.json"), key=lambda p: p.stat().st_mtime_ns
    )
    return [json.loads(path.read_text()) for path in found]


def test_it_is_a_sink():
    assert isinstance(WandbSink(), Sink)


@pytest.mark.slow
def test_an_offline_run_holds_curves_config_summary_and_tables(tmp_path):
    write(tmp_path, [evaluation(0, 0.1), evaluation(300, 0.4)])
    rows = [row for row in history(tmp_path) if STEP in row]
    assert [(row[STEP], round(row["face_similarity"], 3)) for row in rows] == [(0, 0.115), (300, 0.415)]
    assert rows[1]["interval/face_similarity/low"] < 0.415 < rows[1]["interval/face_similarity/high"]
    assert rows[0]["grid._type"] == "image-file"
    config, summary = values(tmp_path, "config"), values(tmp_path, "summary")
    assert (config["train.rank"], config["train.flip"]) == (4, True)
    assert (summary["best/step"], summary["stop_reason"]) == (300, "patience")
    assert round(summary["best/face_similarity"], 3) == 0.415
    run = [record.run for record in records(tmp_path) if record.HasField("run")][-1]
    assert (run.project, run.display_name, run.notes) == ("finetune-monitor", tmp_path.name, NOTICE)


@pytest.mark.parametrize("images", [True, False])
def test_the_contact_sheet_is_logged_unless_images_stay_out(tmp_path, images):
    Image.new("RGB", (300, 200), "red").save(tmp_path / CONTACT_SHEET)
    write(tmp_path, [evaluation(0)], WandbSink(images=images))
    found = [row for row in history(tmp_path) if any(key.startswith("photos") for key in row)]
    assert [row[STEP] for row in found] == ([0] if images else [])


def test_one_table_at_the_end_has_a_row_for_each_image(tmp_path):
    write(tmp_path, [evaluation(0, faces=0), evaluation(300, 0.4), evaluation(600, 0.5)])
    [whole] = tables(tmp_path, "images")
    columns = ["step", "cell", "prompt", "seed", "image", "face_similarity", "faces_found", "aesthetic"]
    assert whole["columns"] == columns
    assert [row[0] for row in whole["data"]] == [0] * 4 + [300] * 4 + [600] * 4
    assert whole["data"][7][1:4] == ["p01-s7", GRID.prompts[1], 7]
    assert whole["data"][0][5] is None
    assert whole["data"][7][5] == pytest.approx(0.43)


def test_panels_of_images_have_one_key_a_prompt_and_the_training_step_on_their_slider(tmp_path):
    write(tmp_path, [evaluation(0, faces=0), evaluation(300, 0.4)])
    rows = [row for row in history(tmp_path) if STEP in row]
    keys = ("prompts/00_a_photo_of_sks_person", "prompts/01_script_alert_x_script")
    for key in keys:
        assert [row[f"{key}._type"] for row in rows] == ["images/separated"] * 2
        assert [row[f"{key}.count"] for row in rows] == [2, 2]
    assert rows[0][f"{keys[0]}.captions"][0] == "seed 0 no face, face_similarity -, aesthetic 5.000"
    assert rows[1][f"{keys[0]}.captions"][1] == "seed 7, face_similarity 0.410, aesthetic 5.000"
    axes = {(each.name or each.glob_name): each.step_metric for each in metrics(tmp_path)}
    assert axes["grid"] == axes["prompts/*"] == STEP


def metrics(folder: Path) -> list:
    """How curves and panels are defined."""
    return [record.metric for record in records(folder) if record.HasField("metric")]


def test_images_are_written_twice_however_long_the_run(tmp_path):
    write(tmp_path, [evaluation(100 * i) for i in range(6)])
    files = [path for root in ("wandb", "home") for path in (tmp_path / root).rglob("*") if path.is_file()]
    copies = [path for path in files if path.read_bytes()[:4] == b"\x89PNG"]
    assert len(copies) == 2 * 6 * len(GRID.cells)


def test_missing_is_not_zero(tmp_path):
    write(tmp_path, [evaluation(0, faces=0), evaluation(300, faces=1)])
    rows = [row for row in history(tmp_path) if STEP in row]
    assert "face_similarity" not in rows[0]
    assert rows[0]["faces_found"] == 0
    assert rows[1]["face_similarity"] == 0.5
    assert "interval/face_similarity/low" not in rows[1]


def test_images_false_keeps_every_image_out(tmp_path):
    write(tmp_path, [evaluation(0, 0.1)], WandbSink(images=False))
    assert [row["faces_found"] for row in history(tmp_path) if STEP in row] == [1.0]
    assert "image" not in tables(tmp_path, "images")[0]["columns"]
    files = [path for root in ("wandb", "home") for path in (tmp_path / root).rglob("*") if path.is_file()]
    assert not [path for path in files if path.read_bytes().startswith((b"\x89PNG", b"\xff\xd8\xff"))]


def test_no_secret_and_nothing_personal_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--key=CANARY"])
    write(tmp_path, [evaluation(0)])
    files = [path for root in ("wandb", "home") for path in (tmp_path / root).rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"CANARY" in path.read_bytes()]
    assert not [path for path in files if path.name == "wandb-metadata.json"]


def test_curves_have_the_training_step_as_their_axis(tmp_path):
    write(tmp_path, [evaluation(0)])
    axes = {record.metric.name: record.metric.step_metric for record in records(tmp_path) if record.HasField("metric")}
    assert axes["face_similarity"] == axes["interval/face_similarity/low"] == STEP


def test_losses_between_evaluations_at_every_step_are_all_there(tmp_path):
    """With wandb's own step, which every evaluation moves on, each loss would come too late."""
    Image.new("RGB", (300, 200), "red").save(tmp_path / CONTACT_SHEET)
    accelerator = Accelerator(cpu=True)
    [sink] = start_sinks(accelerator, tmp_path, {WandbSink: {}})
    sink.start(run_info(tmp_path))
    for step in range(4):
        log(accelerator, {"train/loss": 0.5 - step / 10}, step)
        sink.write(evaluation(step), images())
    sink.close(RunSummary((evaluation(3),), "face_similarity", 3, None))
    end(accelerator)
    losses = [(row[STEP], row["train/loss"]) for row in history(tmp_path) if "train/loss" in row]
    assert losses == [(0, 0.5), (1, 0.4), (2, 0.3), (3, 0.2)]
    axes = {record.metric.name: record.metric.step_metric for record in records(tmp_path) if record.HasField("metric")}
    assert axes["train/loss"] == axes["face_similarity"] == STEP


@pytest.mark.slow
def test_a_resume_goes_on_with_the_same_run_and_keeps_repeated_steps(tmp_path):
    write(tmp_path, [evaluation(0), evaluation(300, 0.1)])
    first = records(tmp_path)
    write(tmp_path, [evaluation(300, 0.4)], resume_step=0)
    ids = [
        next(record.run.run_id for record in found if record.HasField("run")) for found in (first, records(tmp_path))
    ]
    assert ids[0] == ids[1]
    assert [round(row["face_similarity"], 3) for row in history(tmp_path) if STEP in row] == [0.415]


def test_an_offline_run_leaves_the_console_alone(tmp_path, capfd):
    write(tmp_path, [evaluation(0)])
    write(tmp_path, [evaluation(300)], resume_step=0)
    assert capfd.readouterr() == ("", "")


def test_a_new_run_has_a_new_id(tmp_path):
    assert "id" not in init_arguments(tmp_path, {}, None)
    write(tmp_path, [evaluation(0)])
    assert "id" not in init_arguments(tmp_path, {}, None)
    assert init_arguments(tmp_path, {}, 0)["id"] == (tmp_path / "wandb" / "run-id").read_text()
    assert "resume" not in init_arguments(tmp_path, {}, 0)
    assert init_arguments(tmp_path, {"mode": "online"}, 0)["resume"] == "allow"


@pytest.mark.parametrize(
    ("mode", "environment", "used"),
    [
        ("offline", None, "offline"),
        ("online", None, "online"),
        ("online", "offline", "offline"),
        ("online", "disabled", "disabled"),
        ("offline", "online", "offline"),
        ("offline", "disabled", "disabled"),
        ("disabled", "online", "disabled"),
        ("online", "nonsense", "offline"),
    ],
)
def test_the_environment_can_only_make_it_more_private(tmp_path, monkeypatch, mode, environment, used):
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert init_arguments(tmp_path, {"mode": mode}, None)["mode"] == used


def test_what_used_to_be_called_dryrun_is_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert init_arguments(tmp_path, {"mode": "online"}, None)["mode"] == "offline"


LABELS = {"group": "faces", "tags": ["a", "b"], "job_type": "train", "notes": "mine", "name": "first", "project": "own"}
"""Options of the sink."""

IN_ENVIRONMENT = {
    "WANDB_RUN_GROUP": "faces",
    "WANDB_TAGS": "a,b",
    "WANDB_JOB_TYPE": "train",
    "WANDB_NOTES": "mine",
    "WANDB_NAME": "first",
    "WANDB_PROJECT": "own",
    "WANDB_ENTITY": "team",
    "WANDB_RUN_ID": "id7",
}


def labels_of(folder: Path) -> dict:
    """What the run calls itself."""
    run = [record.run for record in records(folder) if record.HasField("run")][-1]
    found = {"group": run.run_group, "tags": list(run.tags), "job_type": run.job_type, "notes": run.notes}
    return {**found, "name": run.display_name, "project": run.project}


def test_the_labels_of_the_config_reach_the_run(tmp_path):
    write(tmp_path, [evaluation(0)], WandbSink(**LABELS))
    assert labels_of(tmp_path) == {**LABELS, "notes": f"mine\n{NOTICE}"}


@pytest.fixture
def read_anew() -> Iterator[None]:
    """wandb reads the environment once a process, unless told otherwise."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.usefixtures("read_anew")
def test_the_environment_labels_the_run_where_the_config_does_not(tmp_path, monkeypatch):
    for name, value in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path, [evaluation(0)])
    assert labels_of(tmp_path / "elsewhere") == {**LABELS, "notes": f"mine\n{NOTICE}"}
    assert (tmp_path / "wandb/run-id").read_text() == "id7"
    write(tmp_path, [evaluation(300)], WandbSink(project="config", tags=["c"]), resume_step=0)
    assert labels_of(tmp_path / "elsewhere")["tags"] == ["c"]
    assert labels_of(tmp_path / "elsewhere")["project"] == "config"


def test_no_argument_of_ours_takes_the_place_of_a_variable(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run-id").write_text("old")
    assert init_arguments(tmp_path, {"mode": "online"}, 0).keys() >= {"project", "name", "dir", "id", "resume"}
    for name in ("PROJECT", "NAME", "DIR", "RUN_ID", "RESUME", "CONSOLE", "QUIET", "SILENT"):
        monkeypatch.setenv(f"WANDB_{name}", "x")
    options = dict.fromkeys(WandbSink.Options.__dataclass_fields__.keys() - {"mode", "images"})
    assert init_arguments(tmp_path, options, 0) == {"mode": "offline", "settings": {"x_disable_meta": True}}


@pytest.mark.slow
def test_a_given_run_is_left_open(tmp_path):
    with wandb.init(mode="offline", dir=tmp_path, project="mine", settings={"silent": True, "console": "off"}) as run:
        write(tmp_path, [evaluation(0, 0.1)], WandbSink(run=run))
        run.log({"loss": 1.0})
        assert run.project == "mine"
    assert [row["loss"] for row in history(tmp_path) if "loss" in row] == [1.0]
    axes = {record.metric.name: record.metric.step_metric for record in records(tmp_path) if record.HasField("metric")}
    assert "loss" not in axes
    assert "*" not in axes


def test_a_disabled_run_writes_nothing(tmp_path):
    write(tmp_path, [evaluation(0)], WandbSink(mode="disabled"))
    assert not list(tmp_path.glob("wandb/*run-2*"))


def test_without_wandb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install "finetune_monitor\[wandb\]"'):
        WandbSink()


def sounding(step: int, *alarms: str) -> Evaluation:
    return replace(evaluation(step), alarms=alarms)


def alerts(folder: Path) -> list:
    return [record.alert for record in records(folder) if record.HasField("alert")]


def test_an_alarm_that_begins_to_sound_is_an_alert_once(tmp_path):
    both = ("aesthetic", "faces_found")
    found = [sounding(0), sounding(100, "aesthetic"), sounding(200, *both), sounding(300), sounding(400, "aesthetic")]
    write(tmp_path, found, columns=ALARMED)
    assert [(alert.title, alert.level) for alert in alerts(tmp_path)] == [
        ("alarm at step 100: aesthetic", "WARN"),
        ("alarm at step 200: faces_found", "WARN"),
        ("alarm at step 400: aesthetic", "WARN"),
    ]
    assert alerts(tmp_path)[0].text == "aesthetic is 5.000 [5.000, 5.000], below 5.5: the images are ugly"
    assert [row["alarm/aesthetic"] for row in history(tmp_path) if STEP in row] == [5.5] * 5


def test_the_pareto_front_is_a_scatter_plot_of_the_steps(tmp_path):
    write(tmp_path, [evaluation(0, 0.1), evaluation(300, 0.4)])
    rows = [row for row in history(tmp_path) if STEP in row]
    assert "pareto_table.path" not in rows[0]
    assert rows[1]["pareto_table.nrows"] == 2
    run = max(tmp_path.glob("wandb/offline-run-*"))
    [table] = [json.loads(path.read_text()) for path in run.rglob("pareto_table*.json")]
    assert table["columns"] == ["step", "face_similarity", "aesthetic", "pareto"]
    assert [row[0] for row in table["data"]] == [0, 300]
    assert [row[3] for row in table["data"]] == [False, True]


def test_a_resume_says_nothing_again_of_an_alarm_that_sounded_before(tmp_path):
    before = (sounding(50, "aesthetic"),)
    write(tmp_path, [sounding(100, "aesthetic")], columns=ALARMED, evaluations=before, resume_step=50)
    assert alerts(tmp_path) == []


def test_a_step_that_is_repeated_after_a_kill_is_no_alert_again(tmp_path):
    again = [sounding(100, "aesthetic"), sounding(150), sounding(200, "aesthetic")]
    lost = (sounding(100, "aesthetic"),)
    write(tmp_path, again, columns=ALARMED, evaluations=(sounding(50),), resume_step=50, repeated=lost)
    assert [alert.title for alert in alerts(tmp_path)] == ["alarm at step 200: aesthetic"]


def test_an_alert_has_a_title_that_wandb_takes(tmp_path):
    name = "n" * 80
    columns = {name: ALARMED["aesthetic"]}
    long = replace(sounding(100, name), scores={name: evaluation(0).scores["aesthetic"]})
    write(tmp_path, [long], columns=columns)
    assert [len(alert.title) for alert in alerts(tmp_path)] == [63]


def test_an_alarm_of_a_disabled_run_goes_nowhere(tmp_path):
    write(tmp_path, [sounding(100, "aesthetic")], WandbSink(mode="disabled"), columns=ALARMED)
    assert not list(tmp_path.glob("wandb/*run-2*"))


@pytest.fixture
def logged_out(tmp_path, monkeypatch, read_anew) -> Path:
    """A home folder without a login."""
    monkeypatch.delenv("NETRC", raising=False)
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.invalid:1234")
    return tmp_path


def test_online_without_a_login_is_refused_before_anything_starts(logged_out):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no login for http://wandb.invalid:1234; run `wandb login`.*mode=offline"):
        WandbSink(mode="online")
    assert time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["wandb.invalid:1234", "api.wandb.ai"])
def test_the_login_that_wandb_has_written_is_found(logged_out, machine):
    (logged_out / ".netrc").write_text(f"machine {machine}\n  login user\n  password {'0' * 40}\n")
    WandbSink.check_options({"mode": "online"})


def test_a_damaged_file_of_logins_is_none(logged_out):
    (logged_out / ".netrc").write_text("nonsense\n")
    with pytest.raises(UserError, match="found no login"):
        WandbSink.check_options({"mode": "online"})


def test_a_key_in_the_environment_is_a_login(logged_out, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    WandbSink.check_options({"mode": "online"})


@pytest.mark.parametrize(("mode", "environment"), [("offline", ""), ("disabled", ""), ("online", "offline")])
def test_what_sends_nothing_needs_no_login(logged_out, monkeypatch, mode, environment):
    monkeypatch.setenv("WANDB_MODE", environment)
    WandbSink.check_options({"mode": mode})


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="found mode 'onlin', expected one of online, offline, disabled"):
        WandbSink.check_options({"mode": "onlin"})


def test_a_training_names_the_missing_login_with_its_other_problems(logged_out, capsys):
    overrides = [f"output_dir={logged_out / 'run'}", "data.instance_images=nowhere", "monitor.sinks.wandb.mode=online"]
    assert main(ROOT / "configs/demo.yaml", [*overrides, "monitor.enabled=false"]) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "sink wandb: mode is online, but found no login for http://wandb.invalid:1234" in said
