"""Deliver events in a thread of their own: training never waits for them, and no failure ends it."""

import json
import logging
import math
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.text import shortened
from finetune_monitor.monitor.hooks.events import Events
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.sinks import RunInfo

logger = logging.getLogger(__name__)

LONGEST = 300
"""Characters of an error that a warning quotes."""

MOST = 100
"""Events that wait at most; later ones are dropped."""


class DeliveryError(Exception):
    """An event was not delivered; says why."""


def check_timeout(timeout: float) -> None:
    """Check that a time-out is one.

    Raises:
        ValueError: it is not a finite number of seconds above 0.
    """
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout: found {timeout:g}, expected a number of seconds above 0")


class Deliveries:
    """Events on their way, delivered one after the other.

    The first failure is a warning, and the end says how many events were not delivered.

    Args:
        name: of the hook, for messages.
        deliver: delivers the JSON of one event, and raises `DeliveryError` if it cannot.
        patience: seconds to wait at the end for the events on their way.
    """

    def __init__(self, name: str, deliver: Callable[[bytes], None], patience: float) -> None:
        self._name, self._deliver, self._patience = name, deliver, patience
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST)
        self._given = self._delivered = 0
        self._has_failed = False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, event: Mapping[str, Any]) -> None:
        """Deliver an event soon."""
        self._given += 1
        try:
            self._waiting.put_nowait(json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        except queue.Full:
            self._failed(f"{MOST} events are waiting already")

    def close(self) -> None:
        """Wait for the events on their way, within the patience, and say how many were not delivered."""
        deadline = time.monotonic() + self._patience
        with suppress(queue.Full):
            self._waiting.put(None, timeout=self._patience)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if lost := self._given - self._delivered:
            logger.warning("%s: %d of %d events were not delivered", self._name, lost, self._given)

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._deliver(event)
                self._delivered += 1
            except DeliveryError as error:
                self._failed(str(error))
            except Exception as error:
                self._failed(repr(error))

    def _failed(self, why: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            words = shortened(why, LONGEST)
            logger.warning("%s: an event was not delivered: %s; training continues", self._name, words)


class EventHook(ABC):
    """A hook that delivers the events of a run; a subclass begins when the run starts, and says how."""

    _events: Events
    _deliveries: Deliveries

    def _begin(self, run: RunInfo, wanted: Sequence[str], name: str, patience: float) -> None:
        """Deliver the events with these names; `name` and `patience` are those of `Deliveries`."""
        self._events = Events(run, wanted)
        self._deliveries = Deliveries(name, self._deliver, patience)

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Deliver the events that this evaluation is."""
        for event in self._events.of_evaluation(evaluation):
            self._deliveries.give(event)

    def close(self, summary: RunSummary) -> None:
        """Deliver the end, and wait for it within the time-outs."""
        for event in self._events.of_end(summary):
            self._deliveries.give(event)
        self._deliveries.close()

    @abstractmethod
    def _deliver(self, event: bytes) -> None:
        """Deliver the JSON of one event.

        Raises:
            DeliveryError: it cannot be delivered.
        """
