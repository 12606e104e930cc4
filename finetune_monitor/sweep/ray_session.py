"""Run Ray for one sweep: on this machine without any setup, or on a cluster by its address."""

import gc
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
from finetune_monitor.base.files import read_regular, write_atomic
from finetune_monitor.sweep.spec import ResourcesConfig

ANSWER_WITHIN = 5.0
"""Seconds that a cluster has to respond."""

HEALTHY_WITHIN = 15.0
"""Seconds for Ray's own check, most of which is loading Ray."""

PREFIX, NOTE = "finetune-sweep-", "temporary"
"""The name prefix of the folder for Ray's temporary files, and the file that records its path."""

HOME, OWNER, LONGEST_NOTE = Path("/tmp"), "sweep", 10_000
"""Where that folder lies, the file in it that names its sweep, and the size in bytes of such notes."""

OBJECT_STORE = 80 * 2**20
"""In bytes; the minimum that Ray accepts, as nothing is stored there."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill supervisors because of their trials' memory
    "RAY_enable_metrics_collection": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "600",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Ray's environment variables: nothing leaves the machine, nothing is printed, and Ctrl-C is handled here."""


MODE, SECRET = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
"""The variable that makes Ray's processes require a token, and the variable with the token."""


def prepare_ray(address: str | None) -> None:
    """Prepare for Ray: check that it is installed and that a cluster responds, and set Ray's environment.

    Raises:
        UserError: one of the checks fails.
    """
    os.environ.update(QUIET)
    if address is None:
        # Ray listens on every interface and runs whatever it receives. Our own token leaves the home folder untouched.
        os.environ[MODE] = "token"
        os.environ.setdefault(SECRET, secrets.token_hex(32))
    elif is_installed("ray"):
        _check_reachable(address)
    for package in ("optuna", "ray.tune"):
        require(package, "sweep")


@contextmanager
def ray_session(address: str | None, scratch: Path) -> Iterator[None]:
    """Start Ray, or join the cluster at `address`; Ray's files on this machine are removed at the end.

    Raises:
        UserError: there is no cluster at the address, or it has a different version.
    """
    prepare_ray(address)
    import ray

    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    temporary = _temporary_folder(scratch) if address is None else None
    try:
        _start(address, temporary)
        if temporary is not None:
            temporary.chmod(0o700)  # Ray has opened it to everybody
        yield
    finally:
        with _no_garbage_collected():
            ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """For the end of Ray: if another thread frees an object of Ray meanwhile, Ray ends this process at once, without
    the answer."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
            f"resources: a trial needs {chosen.cpus:g} CPUs and {gpus:g} GPUs, but the machines have {found}; no trial "
            "could ever start, so lower resources.cpus or resources.gpus"
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
            f"address: no Ray cluster responds at {address} ({error}); start one there (ray start --head), correct the "
            "address, or leave it out to use only this machine"
        ) from error
    _check_is_ray(address)


def _check_is_ray(address: str) -> None:
    """Check with Ray's own command: `ray.init` would wait for minutes if something else listens there. Ray sends a
    token only if configured to, and a cluster without tokens does not accept one.
    """
    problem = _health_problem(address)
    if problem and _is_of_token(problem) and MODE not in os.environ:
        os.environ[MODE] = "token"
        problem = _health_problem(address)
    if problem and _is_of_token(problem):
        raise UserError(
            f"address: the Ray cluster at {address} requires a token, but found none or a different one here; copy "
            "~/.ray/auth_token from the machine where it was started to the same place on this one (or set "
            f"RAY_AUTH_TOKEN_PATH to that file), and leave out {MODE} or set {MODE}=token"
        )
    if problem is not None:
        raise UserError(
            f"address: found no healthy Ray cluster at {address}; use the address that ray start --head "
            "printed (the default port is 6379)"
        )


def _is_of_token(problem: str) -> bool:
    return "authentication" in problem.lower()


def _health_problem(address: str) -> str | None:
    """The output of Ray's check if a cluster is not healthy; None if it is."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=HEALTHY_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return "no response"
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
        with _apart_from_our_signals():
            ray.init(address="local" if address is None else address, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        place = "here" if address is None else f"at {address}"
        raise UserError(f"address: cannot start or join Ray {place}: {error}") from error


@contextmanager
def _apart_from_our_signals() -> Iterator[None]:
    """Give the processes that Ray starts in this block a process group of their own.

    A signal to this command's whole group, as `timeout` sends it, would end them, and without them, no trial could be
    told to stop. They end with this process, however it ends.
    """
    is_starting = True

    def leave_group() -> None:  # runs in children whose parent passes a `preexec_fn`, as Ray does
        if is_starting:
            os.setpgrp()

    os.register_at_fork(after_in_child=leave_group)  # for good
    try:
        yield
    finally:
        is_starting = False


def _temporary_folder(scratch: Path) -> Path:
    """A new temporary folder, recorded in the sweep's folder in case this process is killed."""
    # Not in TMPDIR: the paths of Ray's sockets below it must not be longer than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=HOME))
    write_atomic(folder / OWNER, _owner(scratch).encode())
    write_atomic(scratch / NOTE, str(folder).encode())
    return folder


def remove_temporary(scratch: Path) -> None:
    """Remove Ray's temporary files left by a command that was killed: a folder that says it was made for this sweep."""
    try:
        old = Path(read_regular(scratch / NOTE, LONGEST_NOTE).decode())
        is_ours = old.parent == HOME and old.name.startswith(PREFIX) and not old.is_symlink()
        if is_ours and read_regular(old / OWNER, LONGEST_NOTE).decode() == _owner(scratch):
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, ValueError):
        return  # there is none


def _owner(scratch: Path) -> str:
    return os.path.realpath(scratch)
