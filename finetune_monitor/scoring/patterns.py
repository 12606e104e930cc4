"""How other tools name images and LoRA files, as a table: a new trainer is one line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """What the name of a file says; None where it does not say.

    tool: whose rule the name follows.
    series: what the files of one training have in common.
    index: the place of the prompt in the trainer's list.
    label: what the name has of the prompt, which may be shortened.
    """

    tool: str
    step: int | None = None
    epoch: int | None = None
    index: int | None = None
    seed: int | None = None
    label: str | None = None
    series: str | None = None


def _rule(tool: str, pattern: str) -> tuple[str, re.Pattern[str]]:
    """A tool with the end of a path below the given folder, without suffix; the groups are the fields of `Named`."""
    return tool, re.compile(rf"(?:^|.*/){pattern}")


_TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"

_SAMPLE = rf"[^/]*{_TIME}-training-sample-(?P<step>\d+)-(?P<epoch>\d+)-\d+"

IMAGES = (
    _rule("kohya", r"(?:[^/]*_)?e(?P<epoch>\d{6})_(?P<index>\d{2,})_\d{14}(?:_(?P<seed>\d+))?"),
    _rule("kohya", r"(?:[^/]*_)?(?P<step>\d{6,})_(?P<index>\d{2,})_\d{14}(?:_(?P<seed>\d+))?"),
    _rule("SimpleTuner", r"step_(?P<step>\d+)_(?P<label>[^/]+)_\d+_(?:\d+x\d+|unknown)"),
    _rule("OneTrainer", rf"(?P<index>\d+) - (?P<label>[^/]+)/{_SAMPLE}"),
    _rule("OneTrainer", _SAMPLE),
    _rule("ai-toolkit", r"\d{13}__(?P<step>\d{9})_(?P<index>\d+)"),
    _rule("finetune_monitor", r"step-(?P<step>\d{6,})/p(?P<index>\d\d+)-s(?P<seed>\d+)"),
    _rule("ComfyUI", r"[^/]+_\d{5,}_"),
    _rule("AUTOMATIC1111", r"\d{5,}-(?P<seed>\d+)(?:-[^/]*)?"),
)

FOLDER_PER_STEP = "diffusers"

WEIGHTS = (
    _rule(FOLDER_PER_STEP, r"(?:checkpoint-|step-)(?P<step>\d+)/[^/]+"),  # diffusers, SimpleTuner, finetune_monitor
    _rule("kohya", r"(?P<series>[^/]+)-step(?P<step>\d{8})"),
    _rule("kohya", r"(?P<series>[^/]+)-(?P<epoch>\d{6})"),
    _rule("OneTrainer", rf"(?P<series>[^/]*?){_TIME}-save-(?P<step>\d+)-(?P<epoch>\d+)-\d+"),
    _rule("OneTrainer", rf"(?P<series>[^/]*?){_TIME}"),
    _rule("ai-toolkit", r"(?P<series>[^/]+)_(?P<step>\d{9})"),
)


def read_name(name: str, rules: Sequence[tuple[str, re.Pattern[str]]]) -> Named | None:
    """What a file's path below the given folder, with `/` and without suffix, says; None if it follows no rule."""
    for tool, pattern in rules:
        if found := pattern.fullmatch(name):
            said = {key: value for key, value in found.groupdict().items() if value is not None}
            return Named(tool, **{key: _value(key, text) for key, text in said.items()})  # type: ignore[arg-type]
    return None


def _value(key: str, text: str) -> int | str:
    return text if key in ("label", "series") else int(text)
