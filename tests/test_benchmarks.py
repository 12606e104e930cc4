"""The commands that measure run as written, here with hardly any work: they would break unnoticed until needed."""

import os
import re
import subprocess

import pytest

from support import preloaded
from support.places import ROOT

STAGES = ("gpu_checks", "evaluation", "share", "scoring", "training", "memory")


def run(*words, **environment):
    return subprocess.run(words, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)


def test_all_import_what_there_is():
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    imports = "; ".join(["import sys; sys.path.insert(0, 'benchmarks')", *(f"import {name}" for name in names)])
    done = run(preloaded.python(), "-c", imports, PYTHONPATH=".")
    assert done.returncode == 0, done.stderr[-2000:]


def test_cost_grows_with_its_input_as_recorded():
    """CPU time with ten times the input over that with one; a slow-down shows as a higher ratio."""
    done = run(preloaded.python(), "benchmarks/scaling.py", "--check", PYTHONPATH=".")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
def test_a_page_is_measured(chromium):
    done = run(preloaded.python(), "benchmarks/report.py", "long", "--try", "--rounds", "1", PYTHONPATH=".")
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\| further clicks \| \d+ \|", done.stdout)


@pytest.mark.slow
def test_an_evaluation_is_measured_beside_rendering(tmp_path):
    results = tmp_path / "RESULTS.md"
    words = ("benchmarks/beside_rendering.py", "--rounds", "1", "--pixels", "64")
    done = run(preloaded.python(), *words, PYTHONPATH=".", BENCHMARK_RESULTS=str(results))
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\| embed faces \| \d+\.\d+ \|", results.read_text())


@pytest.mark.slow
def test_an_evaluation_that_processes_share_is_measured(tmp_path):
    results = tmp_path / "SCALING.md"
    words = ("benchmarks/processes.py", "--rounds", "1", "--processes", "2", "--images", "2")
    done = run(preloaded.python(), *words, PYTHONPATH=".", BENCHMARK_RESULTS=str(results))
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\| 2 processes \| \d+\.\d+ \|", results.read_text())


@pytest.mark.slow
def test_all_that_is_measured_on_a_gpu_runs(tmp_path):
    results = tmp_path / "GPU.md"
    done = run("benchmarks/gpu.sh", REDUCED="1", BENCHMARK_RESULTS=str(results), PYTHON=preloaded.python())
    assert done.returncode == 0, done.stderr[-3000:]
    sections = re.findall(r"<!-- (\w+) demo -->", results.read_text())
    assert sorted(sections) == sorted(STAGES)
    assert "FAILED" not in results.read_text()
    assert re.search(r"\| training in bf16 \| passed \|", results.read_text())
