"""What Accelerate's launcher asks for: where the config decides instead, and what is not supported."""

import logging
import os
from collections.abc import Iterator

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.training.config import TrainConfig

UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""Ways of sharding a model over GPUs, by the variable with which the launcher turns them on."""

PRECISION, ACCUMULATION, COMPILER = (
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_DYNAMO_BACKEND",
)

logger = logging.getLogger(__name__)


def make_accelerator(train: TrainConfig) -> tuple[Accelerator, list[str]]:
    """Accelerate, set up by the config, and what this machine does not support.

    Raises:
        UserError: the launcher asks for sharded training.
    """
    asked = [name for variable, name in UNSUPPORTED.items() if os.environ.get(variable, "").lower() in ("true", "1")]
    if asked:
        raise UserError(
            f"accelerate launch: found {asked[0]}, expected one GPU or data parallelism, because every model that "
            "can be trained here fits on one GPU; leave the option out, or run `accelerate config` again"
        )
    precision = train.mixed_precision
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=train.gradient_accumulation),
            dynamo_backend="no",  # train.compile compiles
        )
    except ValueError as error:
        return Accelerator(), [f"train.mixed_precision={precision}: {error}"]
    if distributed.is_main():
        for contradiction in _contradictions(train):
            logger.warning(contradiction)
    if precision == "fp16" and accelerator.device.type == "cpu":  # Accelerate would silently train in fp32
        return accelerator, ["train.mixed_precision=fp16: needs a GPU, found none; set it to no, or to bf16"]
    return accelerator, []


def _contradictions(train: TrainConfig) -> Iterator[str]:
    """Where the environment differs from the config; the launcher's defaults do not count."""
    precision, accumulation, compiler = (
        os.environ.get(each, "").lower() for each in (PRECISION, ACCUMULATION, COMPILER)
    )
    if precision not in ("", "no", train.mixed_precision):
        yield _said(PRECISION, precision, "mixed_precision", train.mixed_precision)
    if accumulation not in ("", "1", str(train.gradient_accumulation)):
        yield _said(ACCUMULATION, accumulation, "gradient_accumulation", str(train.gradient_accumulation))
    if compiler not in ("", "no") and train.compile is not True:
        yield _said(COMPILER, compiler, "compile", str(train.compile).lower())


def _said(variable: str, asked: str, key: str, used: str) -> str:
    return (
        f"found {variable}={asked} from accelerate launch, but the config is used: train.{key}={used}; to change it, "
        f"set train.{key}"
    )
