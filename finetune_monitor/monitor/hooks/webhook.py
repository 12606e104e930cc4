"""Send events to an address on the network."""

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, ClassVar
from urllib.parse import urlsplit

from finetune_monitor.base.redaction import REDACTED, hidden_address
from finetune_monitor.base.version import __version__
from finetune_monitor.monitor.hooks.deliveries import DeliveryError, EventHook, check_timeout
from finetune_monitor.monitor.hooks.events import USUAL, EventName, check_events
from finetune_monitor.sinks import RunInfo

PAUSES = (1.0, 5.0)
"""Seconds before each further attempt."""

AGAIN = (408, 425, 429)
"""Statuses below 500 after which another attempt may succeed."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: what was meant for one address is not sent to another."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


@dataclass(eq=False)
class Webhook(EventHook):
    """Send each event as JSON to an address, with POST.

    Events hold scores, alarms, and the verdict, but neither images nor prompts. They are sent beside the training. An
    event is sent up to three times if there is no answer, or if the answer is a status from 500 up, 408, 425, or 429.
    Only the address's host appears in records and messages.

    Args:
        url: where events are sent to, with http or https; keep it secret if whoever knows it may send.
        events: the events that are sent: evaluation, alarm (one that did not sound before), best (a new best step), and
            end.
        timeout: seconds to wait for each answer.

    Raises:
        ValueError: `url` is not such an address, an event is unknown, or `timeout` is not above 0.
    """

    name: ClassVar[str] = "webhook"

    url: str = field(repr=False)
    events: Sequence[EventName] = USUAL
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if REDACTED in self.url:
            raise ValueError(f"url: found {hidden_address(self.url)}, as records have it; write the complete address")
        if not _is_address(self.url):
            shown = hidden_address(self.url)
            raise ValueError(f"url: found {shown}, expected an address such as https://example.org/hook")
        check_events(self.events)
        check_timeout(self.timeout)

    def start(self, run: RunInfo) -> None:
        patience = self.timeout * (len(PAUSES) + 1) + sum(PAUSES)
        self._begin(run, self.events, f"hook webhook {hidden_address(self.url)}", patience)

    def _deliver(self, event: bytes) -> None:
        for pause in PAUSES:
            if self._is_sent(event):
                return
            time.sleep(pause)
        self._send(event)

    def _is_sent(self, event: bytes) -> bool:
        """Whether one attempt succeeded; False if another one may.

        Raises:
            DeliveryError: no other attempt would succeed.
        """
        try:
            self._send(event)
        except _TryAgainError:
            return False
        return True

    def _send(self, event: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"finetune_monitor/{__version__}"}
        request = urllib.request.Request(self.url, event, headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            is_temporary = error.code >= 500 or error.code in AGAIN
            raise (_TryAgainError if is_temporary else DeliveryError)(f"the answer was {error.code}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise _TryAgainError(f"no answer ({why})".replace(self.url, hidden_address(self.url))) from None


class _TryAgainError(DeliveryError):
    """Another attempt may succeed."""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_port and is_plain
