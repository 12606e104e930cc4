"""Start, watch, and stop the process of one attempt at a trial."""

import os
import signal
import socket
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from finetune_monitor.base.files import make_private, private
from finetune_monitor.sweep.trials.process import NAME
from finetune_monitor.training.main import USER_ERROR

PREFIX = f"{NAME}: "

ERROR_LENGTH = 2000
"""Maximum number of characters of an error to keep."""


class Child:
    """One attempt in its own session, with its output appended to a log; it dies when this process does.

    Args:
        cwd: the folder that relative paths in the config start from.
        threads: the number of torch's CPU threads.
        gpus: its share; with 0 it sees none of the machine's GPUs.
        modules: a folder that it can import from, like those in PYTHONPATH; "" for none.
    """

    def __init__(self, config: Path, log: Path, cwd: Path, threads: int, gpus: float, modules: str = ""):
        make_private(log.parent)
        self._log = log
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), modules)))
        unseen = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
        with private(), log.open("ab") as output:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            output.write(f"--- {now} on {socket.gethostname()}: {config}\n".encode())
            output.flush()
            self._begin = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "finetune_monitor.sweep.trials.process", str(config)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", **unseen},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit status, negative if a signal ended it; None while it is running."""
        return self._process.poll()

    def stop(self, seconds: float) -> None:
        """Ask it to save a checkpoint and exit; after `seconds` it is killed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def error(self) -> str:
        """Why it ended: the complete error for the user, or the last line of output."""
        status = self._process.returncode
        text = self._output()
        if status == USER_ERROR and PREFIX in text:
            return text.rpartition(PREFIX)[2].strip()[:ERROR_LENGTH]
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
        if status is not None and status < 0:
            return f"ended by signal {-status} ({signal.Signals(-status).name}); its last line: {last[:ERROR_LENGTH]}"
        return f"ended with status {status}: {last[:ERROR_LENGTH]}"

    def _output(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(self._begin, log.seek(0, os.SEEK_END) - 20 * ERROR_LENGTH))
            return log.read().decode(errors="replace")
