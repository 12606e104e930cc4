"""W&B's environment variables, in every spelling, never make a run more public than its config says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_monitor.sinks.wandb_opening import init_arguments

EXPECTED = {
    ("online", "online"): "online",
    ("online", "ONLINE"): "online",
    ("online", "run"): "online",
    ("online", "offline"): "offline",
    ("online", "OFFLINE"): "offline",
    ("online", "Offline"): "offline",
    ("online", " offline "): "offline",
    ("online", "dryrun"): "offline",
    ("online", "DryRun"): "offline",
    ("online", "disabled"): "disabled",
    ("online", "DISABLED"): "disabled",
    ("online", "of-line"): "offline",
    ("online", "none"): "offline",
    ("online", "shared"): "offline",
    ("online", ""): "online",
    ("offline", "online"): "offline",
    ("offline", "Run"): "offline",
    ("offline", "shared"): "offline",
    ("offline", "nonsense"): "offline",
    ("offline", "disabled"): "disabled",
    ("disabled", "online"): "disabled",
    ("disabled", "dryrun"): "disabled",
}


@pytest.mark.parametrize(("mode", "environment"), EXPECTED)
def test_the_more_private_mode_counts(mode, environment, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    monkeypatch.setenv("WANDB_MODE", environment)
    assert init_arguments(tmp_path, {"mode": mode}, None)["mode"] == EXPECTED[mode, environment]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", "disabled"),
        ("1", "disabled"),
        ("YES", "disabled"),
        ("x", "disabled"),
        ("", "online"),
        ("0", "online"),
        ("false", "online"),
        ("No", "online"),
    ],
)
def test_wandb_disabled_is_obeyed(value, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DISABLED", value)
    assert init_arguments(tmp_path, {"mode": "online"}, None)["mode"] == expected


def test_an_unknown_value_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "of-line")
    init_arguments(tmp_path, {"mode": "online"}, None)
    assert "found WANDB_MODE=of-line, expected one of online, offline, disabled; nothing is sent" in caplog.text


SCRIPT = """
import socket, sys
from pathlib import Path
from finetune_monitor.sinks.wandb import WandbSink
sys.path.insert(0, "tests")
from support.runs import run_info
sink = WandbSink(sys.argv[2])
sink.start(run_info(Path(sys.argv[1])))
print("mode:", sink._run.settings.mode)
sink._run.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_MODE": "OFFLINE"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "nonsense"}, "offline"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
    ],
)
def test_wandb_itself_starts_in_that_mode(variables, mode, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), "online"],
        env={**os.environ, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", **variables},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"mode: {mode}" in ended.stdout, ended.stderr
