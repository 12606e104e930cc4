"""Refuse weights, and networks, whose values are not finite: every score would be missing."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError


def check_weights(where: object, weights: Mapping[str, Tensor]) -> None:
    """Check the tensors of a file, by name.

    Raises:
        UserError: one has values that are not finite.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"{where}: found {count:,} of {tensor.numel():,} values of {name} that are not finite; the file is "
                "damaged, or its training diverged; replace it"
            )


def check_network(where: object, network: nn.Module) -> None:
    """Check the parameters and buffers of a network.

    Raises:
        UserError: one has values that are not finite.
    """
    check_weights(where, network.state_dict())


def check_outputs(where: object, rows: Tensor | np.ndarray) -> None:
    """Check what a network returns.

    Raises:
        UserError: something is not finite.
    """
    if not bool(torch.isfinite(torch.as_tensor(rows)).all()):
        raise UserError(f"{where}: returns values that are not finite, expected finite ones; use other weights")
