"""A real process watches a folder: files that appear, even half written, are scored, until Ctrl-C ends it."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import save_file

from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from support import preloaded, scoring
from support.places import ROOT
from support.scoring import score, write_config, write_images

SECONDS = 120


class Scoring:
    """`finetune-monitor score` in the folder; its output is in files there."""

    def __init__(self, folder, *arguments):
        command = [preloaded.python(), "-m", "finetune_monitor.cli", "score", *map(str, arguments)]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=out, stderr=err
            )

    def wait_for(self, text):
        end = time.monotonic() + SECONDS
        while text not in (said := self._out.read_text() + self._err.read_text()):
            assert time.monotonic() < end, said
            assert self._process.poll() is None, said
            time.sleep(0.1)

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(SECONDS), self._out.read_text(), self._err.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()


@pytest.mark.slow
def test_a_lora_file_that_appears_late_and_half_written(tmp_path, tiny_model, photos):
    config = write_config(tmp_path, tiny_model, photos)
    content = scoring.write_formats(tmp_path, scoring.lora(1))["kohya"].read_bytes()
    (tmp_path / "loras").mkdir()
    with Scoring(tmp_path, "loras", "--base", tiny_model, "--config", config, "-o", "out", "--watch") as watching:
        watching.wait_for("watching for new files")
        (tmp_path / "loras/ana-000001.safetensors").write_bytes(content)
        watching.wait_for("step 1: brightness")
        (tmp_path / "loras/ana-000002.safetensors").write_bytes(content[: len(content) // 2])
        save_file(
            {"unet.nowhere.lora_A.weight": torch.zeros(2, 2), "unet.nowhere.lora_B.weight": torch.zeros(2, 2)},
            tmp_path / "loras/other-000001.safetensors",
        )
        watching.wait_for("does not fit the base model")
        assert [each.step for each in read_run(tmp_path / "out").evaluations] == [0, 1]
        (tmp_path / "loras/ana-000002.safetensors").write_bytes(content)
        watching.wait_for("step 2: brightness")
        status, said, complained = watching.interrupt()
    assert status == 130
    assert "Traceback" not in complained
    assert "verdict:  by brightness" in said
    assert [each.step for each in read_run(tmp_path / "out").evaluations] == [0, 1, 2]


@pytest.mark.slow
def test_images_beside_a_trainer(tmp_path, tiny_model, photos):
    config = write_config(tmp_path, tiny_model, photos)
    (tmp_path / "samples").mkdir()

    def write(step, *places):
        names = {f"ana_{step:06d}_{place:02d}_20260101120000_{place}.png": place for place in places}
        write_images(tmp_path / "staged", names, photos)
        for name in names:
            shutil.move(tmp_path / "staged" / name, tmp_path / "samples" / name)

    with Scoring(tmp_path, "samples", "--config", config, "-o", "out", "--watch") as watching:
        watching.wait_for("watching for new files")
        write(100, 0, 1)
        write(200, 0)
        watching.wait_for("step 100: brightness")
        time.sleep(5)
        assert [each.step for each in read_run(tmp_path / "out").evaluations] == [100]
        write(200, 1)
        watching.wait_for("step 200: brightness")
        status, said, complained = watching.interrupt()
    assert status == 130
    assert "Traceback" not in complained
    assert "verdict:  by brightness" in said
    found = read_run(tmp_path / "out").evaluations
    assert [(each.step, each.scores["brightness"].missing) for each in found] == [(100, 0), (200, 0)]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_scored_and_the_same_command_goes_on(tmp_path, tiny_model, photos, monkeypatch):
    config = write_config(tmp_path, tiny_model, photos)
    file = scoring.write_formats(tmp_path, scoring.lora(1))["kohya"]
    (tmp_path / "loras").mkdir()
    for epoch in range(1, 9):
        shutil.copy(file, tmp_path / f"loras/ana-{epoch:06d}.safetensors")
    arguments = ("loras", "--base", tiny_model, "--config", config, "-o", "out", "--set", "monitor.grid.steps=10")
    with Scoring(tmp_path, *arguments) as first:
        first.wait_for("step 1: brightness")
        status, said, complained = first.interrupt()
    assert status == 130
    assert "Traceback" not in complained
    assert "stopping after this evaluation" in complained
    assert "verdict:  by brightness" in said
    cut = read_run(tmp_path / "out")
    assert cut.reason == StopReason.INTERRUPTED
    assert len(cut.evaluations) < 9
    monkeypatch.chdir(tmp_path)
    assert score(*arguments) == 0
    found = read_run(tmp_path / "out")
    assert [each.step for each in found.evaluations] == list(range(9))
    assert [each.wall_time for each in found.evaluations][: len(cut.evaluations)] == [
        each.wall_time for each in cut.evaluations
    ]
