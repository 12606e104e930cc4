"""What a config can name: metrics, sinks, and stopping rules; a new one takes its own file and one line here.

Each is a class with a `name` and a dataclass of options (its own `Options`, or itself), whose fields are the keys of
its config section. These modules import torch only where they need it, so that reading a config is fast.

A metric also has `columns`, which describe what it measures (`record.columns.ScoreColumn`), and `for_run`, which
creates it for a run; with `is_default`, it is measured unless the config says otherwise. A sink may have `check`, which
raises anything that would keep it from starting, and `tracker`, to share Accelerate's.

Other packages add to them through entry points, and a config names any other class as `module:name` (`training.own`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from finetune_monitor.base.places import imported, is_place
from finetune_monitor.base.sections import nearest
from finetune_monitor.sinks.trackers import TRACKERS, AccelerateTracker


@dataclass(frozen=True)
class Registry:
    """Classes by their names in a config.

    group: the group of entry points through which other packages add classes.
    classes: the package's own classes.
    others: what takes any options, because another library knows which.
    """

    group: str
    classes: dict[str, Any]
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names that a config may use, including those of other packages."""
        return list(dict.fromkeys([*self.own, *offered(self.group)]))

    @property
    def own(self) -> dict[str, Any]:
        """Whatever the package itself names."""
        return {**self.classes, **self.others}

    def find(self, name: str, folders: Sequence[Path] = ()) -> Any:
        """The class with a name, or at a place such as `my_module:Sharpness`.

        Args:
            folders: searched for the module of a place, in addition to the installed packages.

        Raises:
            ValueError: there is no such class, or it cannot be imported.
        """
        if name in self.own:
            return self.own[name]
        if is_place(name):
            return imported(name, folders)
        if name not in self.names:
            raise ValueError(f"found {name!r}, expected module:name, such as my_module:Own{nearest(name, self.names)}")
        return _loaded(name, offered(self.group)[name])

    def collisions(self) -> list[str]:
        """Messages about classes of other packages with a name of the package's own; they are not used."""
        taken = {name: offered(self.group)[name] for name in self.own if name in offered(self.group)}
        return [
            f"{_packages(found)}: offers {name} in {self.group}, but finetune_monitor itself uses this name; the class "
            "is ignored and needs another name"
            for name, found in taken.items()
        ]


@cache
def offered(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """The entry points of the installed packages by name, not loaded."""
    found: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=group):
        found.setdefault(each.name, []).append(each)
    return found


def _loaded(name: str, offered: Sequence[EntryPoint]) -> Any:
    packages = _packages(offered)
    if len(offered) > 1:
        raise ValueError(f"found {name!r}, which several packages offer: {packages}; uninstall all but one")
    try:
        return offered[0].load()
    except Exception as error:
        raise ValueError(
            f"found {name!r} of {packages}, but it cannot be loaded: {error!r}; fix or uninstall that package"
        ) from error


def _packages(offered: Sequence[EntryPoint]) -> str:
    return ", ".join(f"package {each.dist.name} {each.dist.version}" for each in offered if each.dist)


def _named(*places: str) -> dict[str, Any]:
    modules = (place.split(":") for place in places)
    classes = [getattr(import_module(f"finetune_monitor.{module}"), name) for module, name in modules]
    return {each.name: each for each in classes}


METRICS = Registry(
    "finetune_monitor.metrics",
    _named(
        "metrics.face_similarity:FaceSimilarity",
        "metrics.aesthetic:Aesthetic",
        "metrics.leakage:Leakage",
        "metrics.diversity:Diversity",
        "metrics.recognized:Recognized",
        "metrics.copying:Copying",
        "metrics.validation_loss:ValidationLoss",
        "metrics.clip_score:ClipScore",
        "metrics.subject_similarity:SubjectSimilarity",
    ),
)

SINKS = Registry(
    "finetune_monitor.sinks",
    _named(
        "sinks.tensorboard:TensorBoardSink",
        "sinks.wandb:WandbSink",
        "report.sink:ReportPage",
    ),
    {name: AccelerateTracker(name) for name in TRACKERS},
)

HOOKS = _named("monitor.hooks.command:RunCommand", "monitor.hooks.webhook:Webhook")
"""Hooks with options; any function of an evaluation and a decision is one, too, by its place."""

RULES = Registry(
    "finetune_monitor.rules",
    _named(
        "monitor.rules.plateau:Plateau",
        "monitor.rules.patience:Patience",
        "monitor.rules.target:Target",
        "monitor.rules.guard:Guard",
        "monitor.rules.divergence:Divergence",
    ),
)
