"""`watch`: what it prints, which port it takes, and that it leaves nothing behind."""

import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from finetune_monitor.cli import main
from finetune_monitor.commands.watch import PORT
from finetune_monitor.record.evaluation import StopReason
from support.runs import write_run
from support.trainings import started


@pytest.fixture
def run(tmp_path) -> Path:
    write_run(tmp_path / "run", {0: 0.1, 10: 0.5}, StopReason.MAX_STEPS)
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_link_opens_and_nothing_is_left_when_it_ends(number, run, tmp_path):
    places = tmp_path / "places"
    places.mkdir()
    before = sorted(path.name for path in run.iterdir())
    command = [sys.executable, "-m", "finetune_monitor", "watch", str(run), "--port", "0"]
    with started(tmp_path / "said", command, TMPDIR=str(places)) as watch:
        watch.until(lambda: "stop:" in watch.said)
        link = re.search(r"open: +(http://127\.0\.0\.1:\d+/\?key=[\w-]{32})\n", watch.said)[1]
        assert "watch: 1 run in " in watch.said
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"Writing the page" in opener.open(link, timeout=20).read()
        assert len(list(places.iterdir())) == 1
        watch.send(number)
        assert watch.ends() == 0
    assert list(places.iterdir()) == []
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_port_in_use_is_named(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["watch", str(run), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"finetune-monitor: --port {port}: Address already in use" in said
    assert said.endswith("; choose another port\n")


def test_without_a_choice_any_free_port_will_do():
    from finetune_monitor.commands.watch import _listening

    with _listening(None) as first, _listening(None) as second:
        assert first.getsockname()[0] == second.getsockname()[0] == "127.0.0.1"
        assert second.getsockname()[1] != PORT


def test_a_folder_without_runs_is_named(tmp_path, capsys):
    assert main(["watch", str(tmp_path)]) == 2
    assert f"{tmp_path}: found no run in it, expected a run directory" in capsys.readouterr().err


def test_a_place_that_is_no_folder_is_named(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    for name, found in (("run.json", "found a file"), ("nowhere", "no such folder")):
        assert main(["watch", str(tmp_path / name)]) == 2
        assert f"{name}: {found}; expected a run directory or a folder with some" in capsys.readouterr().err
