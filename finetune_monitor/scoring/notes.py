"""What is printed while files are scored."""

from finetune_monitor.base.text import visible
from finetune_monitor.scoring.settings import Measured


class Notes:
    """Prints every note once: a folder that is watched is looked at again and again."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, note: str) -> None:
        if note not in self._said:
            self._said.add(note)
            print(f"note:     {visible(note)}", flush=True)


def say_metrics(measured: Measured) -> None:
    """Print what is measured, and what is not and why."""
    print(f"measured: {', '.join(metric.name for metric in measured.metrics)}")
    said: set[str] = set()
    for name, why in measured.missing.items():
        first, *more = [line for line in visible(why).removeprefix(f"{name}: ").splitlines() if line not in said]
        said.update(more)
        print("\n          ".join([f"missing:  {name}: {first}", *more]))
