"""What a config may name: metrics, sinks and stopping rules; a new one is a file of its own and one line here.

Each is a class with a `name` and a dataclass of options (its own `Options`, or itself), whose fields are the keys of
its section of the config. These modules import torch only where they need it, so that a config is read in no time.

A metric also has `columns`, what it measures (`record.columns.ScoreColumn`), and `for_run`, which makes it for a run;
with `is_default` it is measured where the config does not say otherwise.
A sink may have `check`, which raises what would keep it from starting, and `tracker`, which shares Accelerate's.

Other packages add to them by entry points, and a config names any other class as `module:name` (`training.own`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from finetune_monitor.base.places import imported, is_place
from finetune_monitor.base.sections import nearest


@dataclass(frozen=True)
class Registry:
    """Classes by the names that a config has for them.

    group: of the entry points by which other packages add to it.
    classes: the package's own.
    """

    group: str
    classes: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The package's own, and those that other packages add."""
        return list(dict.fromkeys([*self.classes, *offered(self.group)]))

    def find(self, name: str, folders: Sequence[Path] = ()) -> Any:
        """The class of a name, or at a place such as `my_module:Sharpness`.

        Args:
            folders: where the module of a place is looked for beside the installed packages.

        Raises:
            ValueError: there is none, or it cannot be imported.
        """
        if name in self.classes:
            return self.classes[name]
        if is_place(name):
            return imported(name, folders)
        if name not in self.names:
            raise ValueError(f"found {name!r}, expected module:name, such as my_module:Own{nearest(name, self.names)}")
        return _loaded(name, offered(self.group)[name])

    def collisions(self) -> list[str]:
        """What other packages offer under a name of the package's own, in words; it is not used."""
        taken = {name: offered(self.group)[name] for name in self.classes if name in offered(self.group)}
        return [
            f"{_packages(found)}: offers {name} in {self.group}, which is a name of finetune_monitor's own; it is not "
            "used and needs another name"
            for name, found in taken.items()
        ]


@cache
def offered(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """By name what the installed packages offer, not loaded."""
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
            f"found {name!r} of {packages}, which cannot be loaded: {error!r}; repair or uninstall that package"
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
)

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
