"""Monitor the fine-tuning of Stable Diffusion: render a fixed grid, score every image, stop when nothing improves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finetune_monitor.base.version import __version__ as __version__

if TYPE_CHECKING:
    from finetune_monitor.metrics.aesthetic import Aesthetic as Aesthetic
    from finetune_monitor.metrics.clip_score import ClipScore as ClipScore
    from finetune_monitor.metrics.copying import Copying as Copying
    from finetune_monitor.metrics.diversity import Diversity as Diversity
    from finetune_monitor.metrics.face_similarity import FaceSimilarity as FaceSimilarity
    from finetune_monitor.metrics.leakage import Leakage as Leakage
    from finetune_monitor.metrics.recognized import Recognized as Recognized
    from finetune_monitor.metrics.starred import Starred as Starred
    from finetune_monitor.metrics.subject_similarity import SubjectSimilarity as SubjectSimilarity
    from finetune_monitor.metrics.thresholds import read_thresholds as read_thresholds
    from finetune_monitor.models.clip import ClipEncoder as ClipEncoder
    from finetune_monitor.monitor.callback import FinetuneMonitor as FinetuneMonitor
    from finetune_monitor.monitor.hooks.command import RunCommand as RunCommand
    from finetune_monitor.monitor.hooks.webhook import Webhook as Webhook
    from finetune_monitor.monitor.rules.divergence import Divergence as Divergence
    from finetune_monitor.monitor.rules.guard import Guard as Guard
    from finetune_monitor.monitor.rules.patience import Patience as Patience
    from finetune_monitor.monitor.rules.plateau import Plateau as Plateau
    from finetune_monitor.monitor.rules.target import Target as Target
    from finetune_monitor.record.grid import Cell as Cell
    from finetune_monitor.record.grid import PromptGrid as PromptGrid
    from finetune_monitor.report.sink import ReportPage as ReportPage
    from finetune_monitor.sinks.tensorboard import TensorBoardSink as TensorBoardSink
    from finetune_monitor.sinks.wandb import WandbSink as WandbSink

_HOME = {
    "Aesthetic": "metrics.aesthetic",
    "Cell": "record.grid",
    "ClipEncoder": "models.clip",
    "ClipScore": "metrics.clip_score",
    "Copying": "metrics.copying",
    "Diversity": "metrics.diversity",
    "FaceSimilarity": "metrics.face_similarity",
    "FinetuneMonitor": "monitor.callback",
    "Leakage": "metrics.leakage",
    "Recognized": "metrics.recognized",
    "Divergence": "monitor.rules.divergence",
    "Guard": "monitor.rules.guard",
    "Plateau": "monitor.rules.plateau",
    "Target": "monitor.rules.target",
    "RunCommand": "monitor.hooks.command",
    "Webhook": "monitor.hooks.webhook",
    "Patience": "monitor.rules.patience",
    "PromptGrid": "record.grid",
    "ReportPage": "report.sink",
    "Starred": "metrics.starred",
    "SubjectSimilarity": "metrics.subject_similarity",
    "TensorBoardSink": "sinks.tensorboard",
    "WandbSink": "sinks.wandb",
    "read_thresholds": "metrics.thresholds",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import finetune_monitor` costs milliseconds, not torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
