"""The YAML config: its keys, types, and defaults, and one message that lists all problems."""

from finetune_monitor.training.config.config import Config
from finetune_monitor.training.config.data import DataConfig
from finetune_monitor.training.config.kinds import Seed, UserPath, meanings_of
from finetune_monitor.training.config.monitor import DEFAULT_RULE, MonitorConfig, RuleConfig
from finetune_monitor.training.config.reading import as_begun, load_config, recorded_config, validated
from finetune_monitor.training.config.train import TrainConfig

__all__ = [
    "DEFAULT_RULE",
    "Config",
    "DataConfig",
    "MonitorConfig",
    "RuleConfig",
    "Seed",
    "TrainConfig",
    "UserPath",
    "as_begun",
    "load_config",
    "meanings_of",
    "recorded_config",
    "validated",
]
