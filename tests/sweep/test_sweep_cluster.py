"""A sweep on a Ray cluster: trials on every node, one that is lost with its node, and clusters that cannot be had."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import sweeps

from finetune_monitor.sweep.state import TrialState

TWO_NODES = Path(__file__).with_name("two_nodes.py")


@pytest.fixture
def write(tmp_path, tiny_model, photos):
    return lambda **keys: sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)


@pytest.fixture
def cluster():
    """Two nodes, by their address and what removes the second."""
    folder = tempfile.mkdtemp(prefix="two-", dir="/tmp")  # the names of Ray's sockets must be short
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen([sys.executable, TWO_NODES, folder], text=True, env=environment, **pipes) as nodes:
        lines = (line.strip() for line in nodes.stdout)
        yield next(line for line in lines if ":" in line), nodes
        nodes.stdin.close()
        nodes.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_trials_run_on_both_nodes_and_one_lost_with_its_node_runs_elsewhere(write, cluster):
    address, nodes = cluster
    long = {"train.max_steps": 60, "train.checkpoint_every": 5, "monitor.every": 30}
    path = write(set=long, axes={"train.rank": [1, 2]}, address=address)
    driver = sweeps.start(path)
    try:
        names = ("rank=1", "rank=2")
        sweeps.wait_for(lambda: all(sweeps.has_checkpoint(path, name) for name in names))  # one CPU a node
        nodes.stdin.write("\n")
        nodes.stdin.flush()
        assert driver.wait(120) == 0, sweeps.output(path)
    finally:
        sweeps.end(driver)
    found = sweeps.trials(path).values()
    assert {trial.state for trial in found} == {TrialState.FINISHED}
    assert sorted(trial.attempts for trial in found) == [1, 2]
    assert "tried again from its checkpoint: its machine, or what watches over it there, was lost" in sweeps.output(
        path
    )
    assert all(sweeps.steps(path, name) == [0, 30, 60] for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listens", "problem"),
    [(False, "address: no Ray cluster answers at"), (True, "is no healthy Ray cluster")],
)
def test_a_cluster_that_cannot_be_reached_is_told_soon(write, listens, problem):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        port = taken.getsockname()[1]
        path = write(axes={"train.rank": [1]}, address=f"127.0.0.1:{port}")
        begin = time.monotonic()
        status, output = sweeps.sweep(path)
    assert status == 2
    assert problem in output
    assert f"127.0.0.1:{port}" in output
    assert time.monotonic() - begin < 40
    assert "Traceback" not in output
