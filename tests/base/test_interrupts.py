"""Signals become a flag; a second one ends the process; a closed terminal is survived."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from finetune_monitor.base.interrupts import watched_signals


@contextmanager
def running(program: str, *arguments: str, **streams) -> Iterator[subprocess.Popen]:
    """The program in a process of its own, which does not outlive the test."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments], **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_closed_terminal_asks_for_the_end_and_what_is_printed_then_is_no_error(tmp_path):
    program = """
import os, signal, sys, time
from finetune_monitor.base.interrupts import watched_signals
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where these tests run under nohup
with watched_signals("ending", tell=lambda: open(sys.argv[1], "w").close()) as interrupt:
    print("ready", flush=True)
    while interrupt.number is None:
        time.sleep(0.05)
    time.sleep(0.2)
    print("after", flush=True)
    print("after", file=sys.stderr, flush=True)
    open(sys.argv[2], "w").close()
sys.exit(interrupt.exit_status)
"""
    told, survived = tmp_path / "told", tmp_path / "survived"
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with running(program, str(told), str(survived), start_new_session=True, **streams) as process:
        os.close(theirs)
        assert b"ready" in os.read(ours, 100)
        os.close(ours)
        process.send_signal(signal.SIGHUP)  # the kernel sends it only to the terminal's own session
        assert process.wait(20) == 128 + signal.SIGHUP
    assert told.exists()
    assert survived.exists()


def test_nohup_stays_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watched_signals("ending"):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_second_signal_of_the_same_kind_ends_at_once_and_a_forwarded_one_does_not():
    program = """
import sys, time
from finetune_monitor.base.interrupts import watched_signals
with watched_signals("ending", forwarded=True) as interrupt:
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""
    with running(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "ending; repeat to stop at once\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
