"""A sweep on a Ray cluster: trials on every node, one that is lost with its node, and clusters that cannot be had."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack

import pytest

from finetune_monitor.record.sweep_directory import TrialState
from support import preloaded, sweeps
from support.places import ROOT

pytestmark = pytest.mark.slow

TWO_NODES = ROOT / "tests/support/two_nodes.py"


REFUSED = {
    "nothing": "address: no Ray cluster responds at",
    "stranger": "found no healthy Ray cluster",
}
"""What listens at an address, and what the command says of it."""


@pytest.fixture(scope="module", autouse=True)
def refused(tmp_path_factory, tiny_model, photos):
    """The command for each, begun before all else: one waits for an answer while the other tests run."""
    with ExitStack() as held:
        commands = {}
        for listener in REFUSED:
            taken = held.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            if listener == "stranger":
                taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            folder = tmp_path_factory.mktemp(listener)
            path = sweeps.write_sweep(folder, tiny_model, photos, seeds=[0], address=address)
            commands[listener] = path, address, sweeps.start(path)
            held.callback(sweeps.end, commands[listener][2])
        yield commands


ATTEMPTS = 4
"""At starting the cluster: Ray gives each of its own processes 30 seconds, which a busy machine may exceed."""


@pytest.fixture
def cluster(tmp_path):
    """Two nodes, by their address and what removes the second."""
    log, pipes = tmp_path / "two_nodes.txt", {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for _ in range(ATTEMPTS):
        folder = tempfile.mkdtemp(prefix="two-", dir="/tmp")  # the names of Ray's sockets must be short
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}  # it need not have /tmp/ray
        with log.open("w") as errors:
            command = [preloaded.python(), str(TWO_NODES)]
            nodes = subprocess.Popen(command, text=True, env=environment, stderr=errors, **pipes)
        with nodes:
            address = next((line.strip() for line in nodes.stdout if ":" in line), None)
            if address is not None:
                yield address, nodes
                nodes.stdin.close()
                nodes.wait(100)
        shutil.rmtree(folder, ignore_errors=True)
        if address is not None:
            return
    pytest.fail(f"the cluster did not start in {ATTEMPTS} attempts: {log.read_text()[-2000:]}")


def test_trials_run_on_both_nodes_and_one_lost_with_its_node_runs_elsewhere(tmp_path, tiny_model, photos, cluster):
    address, nodes = cluster
    long = {"train.max_steps": 200, "train.checkpoint_every": 20, "monitor.every": 100}
    path = sweeps.write_sweep(tmp_path, tiny_model, photos, set=long, axes={"train.rank": [1, 2]}, address=address)
    driver = sweeps.start(path)
    try:
        names = ("rank=1", "rank=2")
        sweeps.wait_for(lambda: all(sweeps.has_checkpoint(path, name) for name in names))  # one CPU a node
        nodes.stdin.write("\n")
        nodes.stdin.flush()
        assert driver.wait(300) == 0, sweeps.output(path)
    finally:
        sweeps.end(driver)
    found = sweeps.trials(path).values()
    assert {trial.state for trial in found} == {TrialState.FINISHED}
    assert sorted(trial.attempts for trial in found) == [1, 2]
    assert "retrying from its checkpoint: its machine, or its supervisor there, was lost" in sweeps.output(path)
    assert all(sweeps.steps(path, name) == [0, 100, 200] for name in names)


@pytest.mark.parametrize("listener", REFUSED)
def test_a_cluster_that_cannot_be_reached_is_told(refused, listener):
    path, address, command = refused[listener]
    assert command.wait(300) == 2
    output = sweeps.output(path)
    assert REFUSED[listener] in output
    assert address in output
    assert "Traceback" not in output
