"""A process that dies at a chosen moment: just before one of its calls that touch the disk."""

import os
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any


def die_at(point: int, touches: Sequence[tuple[Any, str]]) -> None:
    """Kill this process just before the `point`-th call of the functions `touches`, each an owner and a name."""
    calls = 0

    def mortal(call: Callable) -> Callable:
        def counted(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for owner, name in touches:
        setattr(owner, name, mortal(getattr(owner, name)))


def in_a_child(action: Callable[[], None]) -> bool:
    """Run `action` in a forked process; whether it lived to the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
        child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status)
