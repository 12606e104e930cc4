"""What Ray is told before it is started: addresses are checked, and its processes answer only who has the token."""

import os
import socket
import subprocess
from contextlib import nullcontext

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.sweep import ray_session, run
from support import sweeps


@pytest.fixture
def environment(monkeypatch):
    """What Ray is told is forgotten after the test."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    for name in (ray_session.MODE, ray_session.SECRET):
        os.environ.pop(name, None)


def test_an_address_where_nothing_answers_leaves_no_folder(environment, tmp_path, tiny_model, photos):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = sweeps.write_sweep(tmp_path, tiny_model, photos, seeds=[0], address=address)
        with pytest.raises(UserError, match="no Ray cluster responds"):
            run.run_sweep(path)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_local_session_has_a_token_of_its_own(environment):
    ray_session.prepare_ray(None)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


REFUSED = "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication token is missing"


@pytest.mark.parametrize(
    ("without", "with_token", "message"),
    [
        (None, None, None),
        (REFUSED, None, None),
        (REFUSED, REFUSED, "requires a token.* copy\n? ?~/.ray/auth_token"),
        ("other", "other", "no healthy"),
    ],
)
def test_a_cluster_that_asks_for_a_token_is_given_one(environment, monkeypatch, without, with_token, message):
    answers = {None: without, "token": with_token}
    run = subprocess.run

    def health_check(command, **options):
        if "health-check" not in command:
            return run(command, **options)
        problem = answers[os.environ.get("RAY_AUTH_MODE")]
        return subprocess.CompletedProcess(command, int(problem is not None), "", problem)

    monkeypatch.setattr(subprocess, "run", health_check)
    with (
        socket.create_server(("127.0.0.1", 0)) as cluster,
        pytest.raises(UserError, match=message) if message else nullcontext(),
    ):
        ray_session.prepare_ray(f"127.0.0.1:{cluster.getsockname()[1]}")
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if without == REFUSED else None)
