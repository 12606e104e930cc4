"""A trial for Ray Tune: an actor that supervises the trial's own process."""

from collections.abc import Mapping
from typing import Any

from ray import tune

from finetune_monitor.sweep.trials.naming import search_name
from finetune_monitor.sweep.trials.supervisor import Site, Supervisor

SITE, TRIAL, PERSON, SEED = "sweep.site", "sweep.trial", "sweep.person", "sweep.seed"
"""Keys of a Tune trial's config; all others are settings suggested by a search."""


class SupervisedTrial(tune.Trainable):
    """Tune requests one result after another; training keeps its own checkpoints, so there are none for Tune.

    Its actor is not reused for another trial: Tune keeps such an actor waiting without telling it that its trial was
    stopped, while the process continues training.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._supervisor = Supervisor(Site.from_json(config[SITE]), name_of(config))

    def step(self) -> dict[str, Any]:
        return self._supervisor.next_result()

    def cleanup(self) -> None:
        self._supervisor.stop()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: training keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing: training finds its own checkpoints."""


def name_of(config: Mapping[str, Any]) -> str:
    """The name of the trial, the same on every machine."""
    if TRIAL in config:
        return str(config[TRIAL])
    return search_name(settings_of(config), config[PERSON], config[SEED])


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings suggested by a search."""
    return {key: value for key, value in config.items() if key not in (SITE, TRIAL, PERSON, SEED)}
