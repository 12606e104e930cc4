"""A module as a user writes one: a metric, a rule and a hook of their own, and some that are wrong."""

MODULE = """
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finetune_monitor.metrics import Description
from finetune_monitor.record.columns import ScoreColumn


class Brightness:
    name, higher_is_better, bounds = "brightness", True, (0.0, 255.0)

    def __init__(self, gain: float, channel: Literal["all", "red"] = "all", unwritable=np.zeros):
        self.gain = gain

    def score(self, images, cells):
        return {self.name: [np.asarray(image).mean() * self.gain for image in images]}


class Other(Brightness):
    pass


class Contrast:
    name, higher_is_better, bounds = "contrast", False, (0.0, 127.5)

    @dataclass(frozen=True)
    class Options:
        floor: float = 0.0
        ceiling: float = 127.5

        def __post_init__(self):
            if self.floor >= self.ceiling:
                raise ValueError(f"Options.floor: found {self.floor}, expected less than the ceiling")

    def __init__(self, options, run):
        self.photos = run.photos

    @classmethod
    def for_run(cls, options, run):
        return cls(options, run)

    def score(self, images, cells):
        values = np.array([np.asarray(image).std() for image in images])
        return {"contrast": values, "contrast_half": values / 2}

    def describe(self):
        said = {"contrast_half": ScoreColumn(False, (0.0, 64.0)), "photos": ScoreColumn(role="side")}
        return Description(said, weights={"photos": len(self.photos)})


class Detail:
    name, higher_is_better, bounds = "detail", True, (0.0, 1.0)
    columns = {"detail": ScoreColumn(True, bounds), "blur": ScoreColumn(False, bounds)}

    def __init__(self, rule: str = "thirds"):
        self.rule = rule

    def score(self, images, cells):
        return {"detail": [0.25] * len(images), "blur": [0.75] * len(images)}


class FromBefore(Brightness):
    name = "before"

    def __init__(self):
        raise OSError("no weights")


class NoBounds(Brightness):
    name, bounds = "loose", None

    def __init__(self):
        pass


class NoScore:
    name, higher_is_better, bounds = "silent", True, (0.0, 1.0)


@dataclass(frozen=True)
class AtStep:
    step: int
    metric: str = "brightness"

    def __post_init__(self):
        if self.step < 0:
            raise ValueError(f"AtStep.step: found {self.step}, expected 0 or more")

    def decide(self, watched):
        return f"step {self.step} is over" if watched.history[-1].step >= self.step else None


class Never:
    metric = "brightness"

    def decide(self, watched):
        return None


class Blind:
    def decide(self, watched):
        return None


calls = []


def on_evaluation(evaluation, decision):
    calls.append((evaluation.step, decision.stop, evaluation.images[0].file))


def failing(evaluation, decision):
    calls.append("failing")
    raise RuntimeError("no network")


def of_one(evaluation):
    pass


NUMBER = 3
"""

PLUGIN = """
class Grain:
    name, higher_is_better, bounds = "grain", True, (0.0, 1.0)

    def __init__(self, size: int = 2):
        pass

    def score(self, images, cells):
        return {"grain": [0.5 for image in images]}


class Never:
    name, metric = "never", "grain"

    def decide(self, watched):
        return None


class Paper:
    name = "paper"

    def start(self, run):
        pass

    def write(self, evaluation, images):
        pass

    def close(self, summary):
        pass
"""
