"""The settings for fitting a head."""

from dataclasses import dataclass, replace

LOSSES = ("mean", "histogram")
BALANCES = ("lds", "resample", "none")


@dataclass(frozen=True)
class FitSettings:
    """The settings for fitting a head.

    loss: `mean`, squared error on the mean rating; `histogram`, earth mover's distance to the raters' votes.
    balance: `lds` weights rare ratings more; `resample` samples them more often; `none`.
    hidden: widths of the layers between the embedding and the output; empty for a single linear layer.
    dropout: share of hidden values dropped in training.
    max_rounds: a round is one pass over the images, or as many passes as make 50 steps.
    patience: rounds without a better validation loss before stopping; half as many lower the learning rate.
    seed: for the initial weights, the order of the images, and the dropout.
    """

    loss: str = "mean"
    balance: str = "lds"
    hidden: tuple[int, ...] = (256, 64)
    activation: str = "relu"
    dropout: float = 0.3
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    max_rounds: int = 100
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name, found, known in (("loss", self.loss, LOSSES), ("balance", self.balance, BALANCES)):
            if found not in known:
                raise ValueError(f"{name}: found {found!r}, expected one of {', '.join(known)}")

    def unbalanced(self) -> "FitSettings":
        """The same settings without balancing, for comparison."""
        return replace(self, balance="none")
