"""What a config may name: metrics, sinks and stopping rules; a new one is a file of its own and one line here.

Each is a class with a `name` and a dataclass of options (its own `Options`, or itself), whose fields are the keys of
its section of the config. These modules import torch only where they need it, so that a config is read in no time.

A metric also has `columns`, what it measures (`record.columns.Column`), and `for_run`, which makes it for a run.
A sink may have `check`, which raises what would keep it from starting, and `tracker`, which shares Accelerate's.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def _named(*places: str) -> Mapping[str, Any]:
    modules = (place.split(":") for place in places)
    classes = [getattr(import_module(f"finetune_monitor.{module}"), name) for module, name in modules]
    return {each.name: each for each in classes}


METRICS = _named(
    "metrics.face_similarity:FaceSimilarity",
    "metrics.aesthetic:Aesthetic",
    "metrics.leakage:Leakage",
    "metrics.diversity:Diversity",
    "metrics.recognized:Recognized",
    "metrics.copying:Copying",
    "metrics.clip_score:ClipScore",
    "metrics.subject_similarity:SubjectSimilarity",
)

SINKS = _named(
    "sinks.tensorboard:TensorBoardSink",
    "sinks.wandb:WandbSink",
    "report.sink:ReportPage",
)

RULES = _named(
    "monitor.rules.plateau:Plateau",
    "monitor.rules.patience:Patience",
    "monitor.rules.target:Target",
    "monitor.rules.guard:Guard",
    "monitor.rules.divergence:Divergence",
)
