"""Ray for the time of one sweep: in this process with nothing to set up, or a cluster by its address."""

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import is_installed, require
from finetune_monitor.sweep.spec import ResourcesConfig

ANSWER_WITHIN = 5.0
"""Seconds that a cluster has to answer."""

HEALTHY_WITHIN = 15.0
"""Seconds for Ray's own check, most of which is loading Ray."""

PREFIX, NOTE = "finetune-sweep-", "temporary"
"""What the folder for Ray's temporary files is called, and the file that says where it is."""

OBJECT_STORE = 80 * 2**20
"""Bytes; the least that Ray takes, and nothing is put there."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it would end the watchers for the memory of the watched
    "RAY_enable_metrics_collection": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "600",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""What Ray reads from the environment: nothing leaves the machine, nothing is printed, Ctrl-C is ours."""


MODE, SECRET = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
"""What says that Ray's processes answer only who has the token, and the token."""


def prepare_ray(address: str | None) -> None:
    """What comes before Ray is started: that it is installed, that a cluster answers, and what Ray is told.

    Raises:
        UserError: one of them is not so.
    """
    os.environ.update(QUIET)
    if address is None:
        # Ray listens on every interface, and runs what it is sent. A token of our own leaves the home folder alone.
        os.environ[MODE] = "token"
        os.environ.setdefault(SECRET, secrets.token_hex(32))
    elif is_installed("ray"):
        _check_reachable(address)
    for package in ("optuna", "ray.tune"):
        require(package, "sweep")


@contextmanager
def ray_session(address: str | None, scratch: Path) -> Iterator[None]:
    """Start Ray, or join the cluster at `address`; what Ray writes on this machine is gone in the end.

    Raises:
        UserError: there is no cluster at the address, or it is of another version.
    """
    prepare_ray(address)
    import ray

    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    temporary = _temporary_folder(scratch) if address is None else None
    try:
        _start(address, temporary)
        yield
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def resources_of(chosen: ResourcesConfig) -> dict[str, float]:
    """The CPUs and GPUs of one trial.

    Raises:
        UserError: no machine has that many.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = chosen.gpus
    if gpus is None:
        gpus = 1 if any(machine.get("GPU", 0) >= 1 for machine in machines) else 0
    if not any(machine.get("CPU", 0) >= chosen.cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        found = "; ".join(f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise UserError(
            f"resources: a trial asks for {chosen.cpus:g} CPUs and {gpus:g} GPUs, the machines have {found}; no trial "
            "could ever start: lower resources.cpus or resources.gpus"
        )
    return {"cpu": chosen.cpus, "gpu": gpus}


def _check_reachable(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"address: found {address!r}, expected host:port of a Ray cluster, auto, or null")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN).close()
    except OSError as error:
        raise UserError(
            f"address: no Ray cluster answers at {address} ({error}); start one there (ray start --head), correct the "
            "address, or leave it out to use this machine alone"
        ) from error
    _check_is_ray(address)


def _check_is_ray(address: str) -> None:
    """Ask by Ray's own command: `ray.init` would wait for minutes for something else that listens there.

    Where the cluster asks for a token, Ray gives it only if it is told to; one that asks for none takes none.
    """
    problem = _health_problem(address)
    if problem and _is_of_token(problem) and MODE not in os.environ:
        os.environ[MODE] = "token"
        problem = _health_problem(address)
    if problem and _is_of_token(problem):
        raise UserError(
            f"address: the Ray cluster at {address} asks for a token, and found none here or another one; copy "
            "~/.ray/auth_token from the machine where it was started to the same place on this one (or set "
            f"RAY_AUTH_TOKEN_PATH to that file), and leave out {MODE} or set {MODE}=token"
        )
    if problem is not None:
        raise UserError(
            f"address: what answers at {address} is no healthy Ray cluster; give the address that ray start --head "
            "printed (its port is 6379 unless told otherwise)"
        )


def _is_of_token(problem: str) -> bool:
    return "authentication" in problem.lower()


def _health_problem(address: str) -> str | None:
    """What Ray's check writes where a cluster is not well; None where it is."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=HEALTHY_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    return None if found.returncode == 0 else found.stderr


def _start(address: str | None, temporary: Path | None) -> None:
    import ray

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    if temporary is not None:
        settings |= {
            "_temp_dir": str(temporary),
            "_node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
    try:
        ray.init(address="local" if address is None else address, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        place = "here" if address is None else f"at {address}"
        raise UserError(f"address: Ray could not be started or joined {place}: {error}") from error


def _temporary_folder(scratch: Path) -> Path:
    """A new one, noted in the sweep's folder, in case that this process is killed."""
    # Not where TMPDIR says: the names of Ray's sockets below it must not be longer than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    (scratch / NOTE).write_text(str(folder))
    return folder


def remove_temporary(scratch: Path) -> None:
    """Remove Ray's temporary files of a command that was killed."""
    note = scratch / NOTE
    if note.exists() and (old := Path(note.read_text())).name.startswith(PREFIX):
        shutil.rmtree(old, ignore_errors=True)
