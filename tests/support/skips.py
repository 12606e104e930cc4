"""What was skipped in a run of the tests, and why."""

from collections import Counter
from collections.abc import Iterable
from typing import Any


def skipped(reports: Iterable[Any]) -> list[str]:
    """A line for each reason why tests were skipped, the most frequent first."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    return [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]
