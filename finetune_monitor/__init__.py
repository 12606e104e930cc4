"""Watch a Stable Diffusion fine-tuning: render a fixed grid, score every picture, stop when nothing improves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune_monitor.agreement.thresholds import read_thresholds as read_thresholds
    from finetune_monitor.clip import ClipEncoder as ClipEncoder
    from finetune_monitor.grid import Cell as Cell
    from finetune_monitor.grid import PromptGrid as PromptGrid
    from finetune_monitor.metrics.aesthetic import Aesthetic as Aesthetic
    from finetune_monitor.metrics.face_similarity import FaceSimilarity as FaceSimilarity
    from finetune_monitor.metrics.starred import Starred as Starred
    from finetune_monitor.monitor import FinetuneMonitor as FinetuneMonitor
    from finetune_monitor.sinks.report import ReportPage as ReportPage
    from finetune_monitor.sinks.tensorboard import TensorBoardSink as TensorBoardSink
    from finetune_monitor.sinks.wandb import WandbSink as WandbSink
    from finetune_monitor.stopping import Patience as Patience

_HOME = {
    "Aesthetic": "metrics.aesthetic",
    "Cell": "grid",
    "ClipEncoder": "clip",
    "FaceSimilarity": "metrics.face_similarity",
    "FinetuneMonitor": "monitor",
    "Patience": "stopping",
    "PromptGrid": "grid",
    "ReportPage": "sinks.report",
    "Starred": "metrics.starred",
    "TensorBoardSink": "sinks.tensorboard",
    "WandbSink": "sinks.wandb",
    "read_thresholds": "agreement.thresholds",
}

__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import finetune_monitor` costs milliseconds, not torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
