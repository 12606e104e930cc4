"""TensorBoard: what its own reader finds in the files."""

import io
import resource
import signal
import threading
from dataclasses import replace

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import RunSummary, StopReason
from finetune_monitor.record.run_directory import CONTACT_SHEET
from finetune_monitor.sinks import Sink
from finetune_monitor.sinks.tensorboard import FIRST_SETTINGS, TensorBoardSink, _shortened, event_folder
from support.runs import ALARMED, CEILING, GRID, NOTICE, evaluation, images, run_info, wait_for_the_next_second


def write(sink: TensorBoardSink, folder, shown, best: int | None = None, **changes) -> None:
    sink.start(run_info(folder, **changes))
    for found in shown:
        sink.write(found, images())
    step = shown[-1].step if best is None else best
    sink.close(RunSummary(tuple(shown), "face_similarity", step, StopReason.MAX_STEPS))


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def test_it_is_a_sink():
    assert isinstance(TensorBoardSink(), Sink)


def test_curves_stand_under_the_names_of_the_scores(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0, 0.1), evaluation(300, 0.4)])
    events = read(event_folder(tmp_path))
    assert points(events, "face_similarity") == [(0, 0.115), (300, 0.415)]
    assert points(events, "faces_found") == [(0, 1.0), (300, 1.0)]
    assert points(events, "monitor/seconds_render") == [(0, 1.5), (300, 1.5)]
    assert points(events, "ceiling/face_similarity") == [(0, CEILING.mean), (300, CEILING.mean)]
    (_, low), (_, high) = (points(events, f"interval/face_similarity/{side}")[1] for side in ("low", "high"))
    assert low < 0.415 < high


def test_the_steps_of_the_pareto_front_are_a_table_that_is_written_where_they_change(tmp_path):
    earlier = (evaluation(0, 0.1),)
    found = [evaluation(300, 0.4), evaluation(600, 0.2), evaluation(900, 0.1)]
    write(TensorBoardSink(), tmp_path, found, evaluations=earlier, resume_step=0)
    events = read(event_folder(tmp_path)).Tensors("run/pareto/text_summary")
    assert [event.step for event in events] == [300]
    table = events[0].tensor_proto.string_val[0].decode()
    assert table == "| step | face_similarity | aesthetic |\n|---|---|---|\n| 300 | 0.415 | 5.000 |"


def test_a_missing_interval_has_the_mean_as_its_ends_so_that_the_chart_keeps_the_run(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0, 0.1), evaluation(300, 0.4, faces=1), evaluation(600, 0.5)])
    events = read(event_folder(tmp_path))
    curves = [points(events, tag) for tag in _band("face_similarity")]
    assert [[step for step, _ in curve] for curve in curves] == [[0, 300, 600]] * 3
    assert [curve[1][1] for curve in curves] == [0.4] * 3


def _band(name: str) -> list[str]:
    return [name, f"interval/{name}/low", f"interval/{name}/high"]


def test_missing_is_not_zero(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0, faces=0), evaluation(300, faces=1)])
    events = read(event_folder(tmp_path))
    assert points(events, "face_similarity") == [(300, 0.5)]
    assert points(events, "faces_found") == [(0, 0.0), (300, 0.25)]
    assert points(events, "interval/face_similarity/low") == [(300, 0.5)]  # no interval, and no point at step 0


def test_one_strip_a_prompt_and_the_whole_grid(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0), evaluation(300)])
    events = read(event_folder(tmp_path))
    assert sorted(events.Tags()["images"]) == [
        "grid",
        "prompts/00 a photo of sks person",
        "prompts/01 <script>alert('x')< script> 写真",
    ]
    for tag in events.Tags()["images"]:
        found = events.Images(tag)
        assert [event.step for event in found] == [0, 300]
        assert Image.open(io.BytesIO(found[1].encoded_image_string)).size == (found[1].width, found[1].height)


def test_the_contact_sheet_of_a_new_run_stands_at_its_first_step(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / CONTACT_SHEET)
    write(TensorBoardSink(), tmp_path, [evaluation(0), evaluation(300)])
    [sheet] = read(event_folder(tmp_path)).Images("photos")
    assert (sheet.step, sheet.width, sheet.height) == (0, 300, 200)
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (tmp_path / CONTACT_SHEET).rename(resumed / CONTACT_SHEET)
    write(TensorBoardSink(), resumed, [evaluation(600)], resume_step=300)
    assert "photos" not in read(event_folder(resumed)).Tags()["images"]


def test_notices_and_config_are_texts_without_secrets(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0)])
    events = read(event_folder(tmp_path))
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if tag.startswith(("run/", "settings/"))
    }
    assert NOTICE in texts["run/notices/text_summary"]
    assert "| train.rank | `4` |" in texts["settings/config/text_summary"]
    assert not [path for path in event_folder(tmp_path).glob("events*") if b"CANARY" in path.read_bytes()]


def experiment(folder):
    """What the table of hyperparameters is to show."""
    content = read(event_folder(folder)).PluginTagToContent("hparams")
    return HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment


def test_hyperparameters_stand_in_the_same_run(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0)])
    content = read(event_folder(tmp_path)).PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert (start["train.rank"].number_value, start["train.flip"].string_value) == (4.0, "True")
    assert HParamsPluginData.FromString(content["_hparams_/session_end_info"]).session_end_info.status


def test_the_scores_of_the_best_step_are_a_run_that_adds_no_chart(tmp_path):
    found = [evaluation(0, 0.1), evaluation(300, 0.4), evaluation(600, 0.2, faces=1)]
    write(TensorBoardSink(), tmp_path, found, best=300)
    best = read(event_folder(tmp_path) / "best")
    assert points(best, "face_similarity") == [(300, 0.415)]
    assert set(best.Tags()["scalars"]) < set(read(event_folder(tmp_path)).Tags()["scalars"])
    metrics = [(info.name.group, info.name.tag) for info in experiment(tmp_path).metric_infos]
    assert metrics == [("best", "face_similarity"), ("best", "aesthetic")]
    for name in ("face_similarity", "aesthetic"):  # a band without its ends would be listed as missing
        assert set(_band(name)) <= set(best.Tags()["scalars"])


@pytest.mark.slow
def test_a_run_that_ends_again_has_one_best_step(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0, 0.1), evaluation(300, 0.4)])
    wait_for_the_next_second()
    again = [evaluation(0, 0.1), evaluation(300, 0.4), evaluation(600, 0.5)]
    write(TensorBoardSink(), tmp_path, again, resume_step=300)
    assert points(read(event_folder(tmp_path) / "best"), "face_similarity") == [(600, 0.515)]


def test_a_run_is_shown_by_its_name(tmp_path):
    write(TensorBoardSink(), tmp_path / "ana", [evaluation(0)])
    assert event_folder(tmp_path / "ana") == tmp_path / "ana/tensorboard/ana"
    (tmp_path / "ana").rename(tmp_path / "renamed")
    assert event_folder(tmp_path / "renamed") == tmp_path / "renamed/tensorboard/ana"  # where its curves go on


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_where_its_curves_are(tmp_path):
    write(TensorBoardSink(SummaryWriter(str(tmp_path / "tensorboard"))), tmp_path, [evaluation(0, 0.1)])
    wait_for_the_next_second()
    write(TensorBoardSink(), tmp_path, [evaluation(300, 0.4)], resume_step=0)
    assert points(read(tmp_path / "tensorboard"), "face_similarity") == [(0, 0.115), (300, 0.415)]


@pytest.mark.parametrize("place", ["", "best"])
def test_a_link_in_place_of_a_folder_is_refused(tmp_path, place):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "events.out.tfevents.1").touch()
    folder = tmp_path / "ana"
    planted = folder / "tensorboard/ana" / place
    planted.parent.mkdir(parents=True)
    planted.symlink_to(elsewhere)
    with pytest.raises(UserError, match="found a link"):
        write(TensorBoardSink(), folder, [evaluation(0)])
    assert [path.name for path in elsewhere.iterdir()] == ["events.out.tfevents.1"]


def test_the_interval_is_a_band(tmp_path):
    write(TensorBoardSink(), tmp_path, [evaluation(0)])
    [tensor] = read(event_folder(tmp_path)).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    [series] = layout.category[0].chart[-1].margin.series
    assert (series.value, series.lower, series.upper) == (
        "face_similarity",
        "interval/face_similarity/low",
        "interval/face_similarity/high",
    )


@pytest.mark.slow
def test_a_resume_hides_what_was_written_after_the_checkpoint(tmp_path):
    first = TensorBoardSink()
    first.start(run_info(tmp_path))  # killed: never closed
    for step in (0, 300, 600):
        first.write(evaluation(step, 0.1), images())
    wait_for_the_next_second()
    write(TensorBoardSink(), tmp_path, [evaluation(600, 0.4)], resume_step=450)
    events = read(event_folder(tmp_path))
    assert points(events, "face_similarity") == [(0, 0.115), (300, 0.115), (600, 0.415)]
    assert [event.step for event in events.Images("grid")] == [0, 300, 600]


def test_a_given_writer_is_flushed_and_left_open(tmp_path):
    writer = SummaryWriter(str(tmp_path / "shared"))
    write(TensorBoardSink(writer), tmp_path, [evaluation(0, 0.1)])
    assert points(read(tmp_path / "shared"), "face_similarity") == [(0, 0.115)]
    assert not (tmp_path / "tensorboard").exists()
    writer.add_scalar("loss", 1.0, 5)
    writer.close()
    assert points(read(tmp_path / "shared"), "loss") == [(5, 1.0)]


def test_images_that_were_not_rendered_are_no_obstacle(tmp_path):
    sink = TensorBoardSink()
    sink.start(run_info(tmp_path))
    sink.write(evaluation(0, faces=0), [None] * len(GRID.cells))
    sink.close(RunSummary((), "face_similarity", None, None))
    assert "grid" in read(event_folder(tmp_path)).Tags()["images"]


def test_a_full_disk_is_an_error_that_the_monitor_can_see(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # the writer's thread dies of it
    others = set(threading.enumerate())
    sink = TensorBoardSink()
    sink.start(run_info(tmp_path))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        with pytest.raises(OSError, match="File too large"):
            sink.write(evaluation(0), images())
    finally:
        for thread in set(threading.enumerate()) - others:
            thread.join(timeout=10)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize(
    ("prompt", "tag"), [("a/b", "a b"), ("a \n b", "a b"), ("x" * 80, "x" * 57 + "..."), ("x" * 60, "x" * 60)]
)
def test_tags_are_short_and_flat(prompt, tag):
    assert _shortened(prompt) == tag


def test_the_level_of_an_alarm_is_a_curve_beside_the_score_and_its_words_are_a_text(tmp_path):
    sounding = replace(evaluation(300), alarms=("aesthetic",))
    write(TensorBoardSink(), tmp_path, [evaluation(0), sounding], columns=ALARMED)
    events = read(event_folder(tmp_path))
    assert points(events, "alarm/aesthetic") == [(0, 5.5), (300, 5.5)]
    assert points(events, "alarm/faces_found") == [(0, 0.5), (300, 0.5)]
    assert "alarm/face_similarity" not in events.Tags()["scalars"]
    [said] = events.Tensors("run/alarms/text_summary")
    assert (
        said.tensor_proto.string_val[0].decode() == "aesthetic is 5.000 [5.000, 5.000], below 5.5: the images are ugly"
    )
    [tensor] = events.Tensors("custom_scalars__config__")
    charts = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0]).category[1].chart
    tags = {chart.title: list(chart.multiline.tag) for chart in charts if chart.multiline.tag}
    assert tags == {
        "face_similarity and the real photos": ["^face_similarity$", "^ceiling/face_similarity$"],
        "aesthetic and its alarm level": ["^aesthetic$", "^alarm/aesthetic$"],
        "faces_found and its alarm level": ["^faces_found$", "^alarm/faces_found$"],
    }


def test_the_table_of_hyperparameters_begins_with_what_matters_and_leaves_out_what_teaches_nothing(tmp_path):
    given = {
        "data.class_count": 200,
        "data.instance_images": "photos/ana",
        "monitor.every": 300,
        "train.batch_size": 1,
        "train.learning_rate": 1e-4,
        "train.method": "lora",
        "train.rank": 16,
        "train.ema_decay": "None",
    }
    write(TensorBoardSink(), tmp_path, [evaluation(0)], hparams=given)
    infos = experiment(tmp_path).hparam_infos
    assert {info.name for info in infos} == {*FIRST_SETTINGS, "train.batch_size"} - {"train.max_steps"}
    assert {info.name for info in infos if info.differs} == set(FIRST_SETTINGS) - {"train.max_steps"}  # come first
    [text] = read(event_folder(tmp_path)).Tensors("settings/config/text_summary")
    assert all(key in text.tensor_proto.string_val[0].decode() for key in given)
