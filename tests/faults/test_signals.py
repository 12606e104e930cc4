"""Signals at the edges: during imports, while class images are generated, and a second one in every phase."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from filelock import FileLock

from finetune_monitor.base.interrupts import watched_signals
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.evaluator import Evaluator
from finetune_monitor.rendering import renderer
from finetune_monitor.training import checkpoints, latents, loop
from finetune_monitor.training import run as run_module
from finetune_monitor.training.config import load_config
from support.places import ROOT
from support.trainings import started

AT_ONCE = 5
"""Seconds on a busy machine."""


@pytest.fixture
def training(write_config, tmp_path) -> Callable[..., int]:
    """A short monitored training with class images."""
    path = write_config()

    def train(*overrides: str) -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        options = ["train.prior_loss_weight=1", "data.class_prompt=a person", f"data.class_images={tmp_path / 'class'}"]
        options += ["data.class_count=2", "train.max_steps=1", "monitor.every=1", "monitor.sinks={}"]
        return run_module.run(load_config(path, [*options, "monitor.stopping=[]", *overrides]))

    return train


def _wait(*arguments: object, **named: object) -> None:
    while True:
        time.sleep(0.01)


def _compute(*arguments: object, **named: object) -> None:
    """One call of a library that takes many minutes."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


def _held(owner: object, name: str, reached: Path, hold: Callable[..., None]) -> None:
    """Let a function do nothing but say that it was called, and hold."""

    def holding(*arguments: object, **named: object) -> None:
        reached.touch()
        hold()

    setattr(owner, name, holding)


PHASES = {
    "loading": (run_module, "load_pipeline"),
    "class images": (renderer.Renderer, "render"),
    "encoding": (latents, "cache_latents"),
    "evaluation": (Evaluator, "measure"),
    "training step": (loop.Trainer, "train_step"),
    "checkpoint": (checkpoints, "save_file"),
    "closing": (FinetuneMonitor, "close"),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_second_signal_ends_at_once(phase, training, forked, tmp_path):
    number = signal.SIGINT if list(PHASES).index(phase) % 2 else signal.SIGTERM

    def action() -> int:
        _held(*PHASES[phase], tmp_path / "reached", _wait)
        return training()

    child = forked(action)
    child.until((tmp_path / "reached").exists)
    os.kill(child.pid, number)
    child.until(lambda: "repeat to stop at once" in child.output.read_text())
    os.kill(child.pid, number)
    assert child.ends(AT_ONCE) == 128 + number
    assert "Traceback" not in child.output.read_text()


@pytest.mark.slow
def test_a_second_signal_ends_at_once_during_a_long_call_of_a_library(forked, tmp_path):
    def action() -> int:
        with watched_signals("ending", forwarded=True):
            (tmp_path / "reached").touch()
            _compute()
        return 0

    child = forked(action)
    child.until((tmp_path / "reached").exists)
    time.sleep(0.2)  # the call has begun
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)  # a launcher may forward one signal as another
    os.kill(child.pid, signal.SIGINT)
    assert child.ends(AT_ONCE) == 128 + signal.SIGINT


@pytest.mark.slow
def test_sigterm_is_obeyed_after_the_batch_of_class_images(training, forked, tmp_path):
    rendered = tmp_path / "rendered"
    render = renderer.Renderer.render

    def action() -> int:
        renderer.DENOISED_PIXELS_ON_CPU = 64 * 64  # one image a batch

        def terminated(self, cells):
            if not rendered.exists():  # a second one would end it at once
                os.kill(os.getpid(), signal.SIGTERM)
            rendered.write_text(rendered.read_text() + "x" if rendered.exists() else "x")
            return render(self, cells)

        renderer.Renderer.render = terminated
        return training("data.class_count=5")

    child = forked(action)
    assert child.ends(60) == 128 + signal.SIGTERM
    assert rendered.read_text() == "x"
    assert [path.name for path in (tmp_path / "class").glob("*.png")] == ["class-000000.png"]
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))


@pytest.mark.slow
def test_sigterm_is_obeyed_while_another_run_generates_class_images(training, forked, tmp_path):
    (tmp_path / "class").mkdir()
    with FileLock(tmp_path / "class/.lock"):
        child = forked(training)
        child.until(lambda: "waiting for the run that generates class images" in child.output.read_text())
        os.kill(child.pid, signal.SIGTERM)
        assert child.ends(AT_ONCE) == 128 + signal.SIGTERM


PROGRAMS = {
    "train.py": ["train.py"],
    "finetune-monitor": ["-m", "finetune_monitor", "train"],
    "launched": ["-m", "finetune_monitor.cli", "train"],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("library", ["pydantic_core", "libtorch_cpu", "torch/_C."])
def test_ctrl_c_during_imports_ends_quietly(program, library, write_config, tmp_path):
    command = [sys.executable, *PROGRAMS[program], "--config", str(write_config())]
    with started(tmp_path / "said", command) as training:
        maps = Path(f"/proc/{training.process.pid}/maps")
        training.until(lambda: library in maps.read_text())
        training.send(signal.SIGINT)
        assert training.ends(AT_ONCE) == 130
        assert training.said == ""


def test_ctrl_c_before_and_after_the_work_ends_quietly(tmp_path):
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import os, signal\n"
    program += "from finetune_monitor.base.interrupts import end_quietly, interruptible_work\nend_quietly()\n"
    kill = "os.kill(os.getpid(), signal.SIGINT)\n"
    work = f"try:\n    with interruptible_work(): {kill}except KeyboardInterrupt: print('interrupted', flush=True)\n"
    for order in (kill, work + kill):
        found = subprocess.run([sys.executable, "-c", program + order], capture_output=True, text=True)
        assert found.returncode == 130
        assert found.stdout == ("interrupted\n" if order != kill else "")
        assert found.stderr == ""


def test_a_background_job_ignores_ctrl_c_also_during_imports():
    program = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    program += "from finetune_monitor.base.interrupts import end_quietly, interruptible_work\nend_quietly()\n"
    program += "with interruptible_work(): os.kill(os.getpid(), signal.SIGINT)\n"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
