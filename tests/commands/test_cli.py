"""The command line: its answers, its errors and its exit statuses."""

import os
import signal
import subprocess
import sys

import pytest

from finetune_monitor import __version__
from finetune_monitor.cli import main
from support.runs import NOTICE, write_run
from support.sweep_folders import write_sweep
from support.tiny import tiny_config


def test_show_prints_the_table(tmp_path, capsys):
    write_run(tmp_path, {0: 0.1, 300: 0.4})
    assert main(["show", str(tmp_path)]) == 0
    found = capsys.readouterr()
    assert "0.415 [" in found.out
    assert NOTICE in found.out
    assert found.err == ""


def test_show_says_what_it_left_out(tmp_path, capsys):
    write_run(tmp_path, {0: 0.1, 300: 0.4})
    path = tmp_path / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert main(["show", str(tmp_path)]) == 0
    assert "evaluations.jsonl:2: the last line is truncated" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_that_is_no_run_is_an_error_of_the_user(tmp_path, capsys, folder):
    assert main(["show", str(tmp_path / folder)]) == 2
    assert "found no run.json, expected a run directory; check the path" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "stop", "export --to new"])
def test_a_sweep_in_place_of_a_run_is_named(tmp_path, capsys, command):
    write_sweep(tmp_path / "sweep", lambda *_: 0.3, values=[1], images=False)
    assert main([*command.split(), str(tmp_path / "sweep")]) == 2
    said = capsys.readouterr().err
    assert (
        f"{tmp_path / 'sweep'}: is a sweep, expected a run; name one of its runs, in {tmp_path / 'sweep/trials'}"
        in said
    )
    assert f"finetune-monitor report {tmp_path / 'sweep'} -o FOLDER" in said


def test_a_folder_of_runs_in_place_of_a_run_is_named(tmp_path, capsys):
    for name in ("ana-0.8", "ana-1"):
        write_run(tmp_path / name, {0: 0.1})
    assert main(["show", str(tmp_path)]) == 2
    assert f"holds 2 runs, expected a run directory; name one of them, such as {tmp_path / 'ana-0.8'}" in (
        capsys.readouterr().err
    )


def test_a_training_leaves_a_sweeps_folder_alone(tmp_path, capsys):
    write_sweep(tmp_path / "sweep", lambda *_: 0.3, values=[1], images=False)
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "--config", "configs/demo.yaml", f"output_dir={tmp_path / 'sweep'}"]) == 2
    assert f"{tmp_path / 'sweep'}: holds a sweep, expected an empty directory" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--config", "configs/sweep_photos_demo.yaml"],
            "is the config of a sweep, expected that of a training",
        ),
        (["sweep", "configs/demo.yaml"], "is the config of a training, expected that of a sweep"),
    ],
)
def test_the_config_of_another_command_is_named(arguments, said, capsys):
    assert main(arguments) == 2
    assert f"{arguments[-1]}: {said}; run finetune-monitor" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--version"], 0), ([], 2), (["unknown"], 2)])
def test_statuses_of_the_parser(arguments, status, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == status
    assert status == 2 or __version__ in capsys.readouterr().out or arguments == ["--help"]


@pytest.mark.slow
def test_neither_help_nor_show_loads_torch():
    code = (
        "import sys, finetune_monitor.cli, finetune_monitor.sinks.console\n"
        "sys.exit('torch' in sys.modules or 'wandb' in sys.modules or 'tensorboard' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def printed(arguments, stdout=subprocess.PIPE, **environment):
    command = [sys.executable, "-m", "finetune_monitor", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_every_command_can_print_what_the_terminal_cannot_show(tmp_path, encoding):
    run = tmp_path / "ana — second try"
    write_run(run, {0: 0.1, 300: 0.4})
    done = printed(["compare", run, run, "--step", "0", "300"], PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2014" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["show"], ["show", "--all"], ["config"]])
def test_a_reader_that_is_gone_is_no_error(tmp_path, arguments):
    write_run(tmp_path, dict.fromkeys(range(100), 0.1))
    reader, writer = os.pipe()
    os.close(reader)
    done = printed([*arguments, *[tmp_path] * (arguments[0] == "show")], writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_a_training_whose_reader_is_gone_does_not_claim_to_be_done(tmp_path, tiny_model, photos):
    (tmp_path / "config.yaml").write_text(tiny_config(tmp_path, tiny_model, photos))
    reader, writer = os.pipe()
    os.close(reader)
    done = printed(["train", "--config", tmp_path / "config.yaml"], writer)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"the reader of its output is gone; run the same command to resume" in done.stderr
