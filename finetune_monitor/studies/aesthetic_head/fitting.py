"""Fit a head on embeddings and ratings: balanced, with early stopping on the validation images and the best weights."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from scipy.ndimage import convolve1d
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics.aesthetic_head import AestheticHead
from finetune_monitor.studies.aesthetic_head.settings import FitSettings

LEAST_STEPS = 50
"""The minimum number of steps between two validations; with many images, one pass has more."""

CHUNK = 8192
"""Embeddings in single precision at a time."""

RARITY_BINS = 20
"""Bins per scale: half a point on 0 to 10."""

KERNEL_SIZE, KERNEL_SIGMA = 5, 2.0
"""In bins, as in Yang et al. 2021."""


@dataclass(frozen=True)
class Targets:
    """The training targets for each image.

    means: the mean rating.
    scale: lowest and highest possible rating.
    counts: votes per grade, and `grades` their ratings; needed only for the histogram loss.
    """

    means: Float[np.ndarray, "n"]
    scale: tuple[float, float]
    counts: Float[np.ndarray, "n k"] | None = None
    grades: Float[np.ndarray, "k"] | None = None


@dataclass(frozen=True)
class Fitted:
    """A head with the weights of the best round, and the validation loss at the end of every round."""

    head: AestheticHead
    losses: tuple[float, ...]

    @property
    def best_round(self) -> int:
        """Counted from 1."""
        return _best(self.losses)


def fit_head(
    embeddings: Float16[np.ndarray, "n d"],
    targets: Targets,
    train: Int[np.ndarray, "t"],
    validation: Int[np.ndarray, "v"],
    settings: FitSettings,
    device: str | torch.device = "cpu",
) -> Fitted:
    """A head for L2-normalized embeddings (rows), fitted on the rows `train`, with early stopping on the rows
    `validation`.

    On the CPU, the same input gives bit-identical weights; the caller's random state is not changed.

    Raises:
        ValueError: histogram loss without votes, or no rows for training or validation.
        UserError: no validation loss is finite.
    """
    if not len(train) or not len(validation):
        raise ValueError(
            f"found {len(train)} images for training and {len(validation)} for validation, expected at least one each"
        )
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        return _Fit(embeddings, targets, train, validation, settings, device).run()


@torch.no_grad()
def predict(head: AestheticHead, embeddings: Float16[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
    """The head's score of each row, in chunks."""
    chunks = [head(torch.from_numpy(part).float()) for part in np.array_split(embeddings, len(embeddings) // CHUNK + 1)]
    return torch.cat(chunks).double().numpy()


def earth_movers_distance(predicted: Float[Tensor, "n k"], voted: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Distance of two distributions over ordered grades: root mean square difference of their cumulative sums.

    With r = 2, as in the training of NIMA (Talebi and Milanfar 2018, equation 1).
    """
    difference = predicted.cumsum(dim=1) - voted.cumsum(dim=1)
    return (difference.square().mean(dim=1) + 1e-12).sqrt()  # the square root has no gradient at 0


def rarity(
    ratings: Float[np.ndarray, "n"], train: Float[np.ndarray, "m"], scale: tuple[float, float]
) -> Float[np.ndarray, "n"]:
    """The inverse of the smoothed density of the training ratings at each rating, with mean 1 over the training
    ratings.

    Label-distribution smoothing (Yang et al. 2021, Delving into Deep Imbalanced Regression): the square root of the
    counts per bin, smoothed by a Gaussian, because what is learned at one rating also helps its neighbors.
    """
    counts = np.bincount(_bins(train, scale), minlength=RARITY_BINS)
    density = convolve1d(np.sqrt(counts), gaussian_kernel(), mode="constant")
    # Bins far from every training rating have no density; they get the weight of the rarest bin that has one.
    inverse = 1 / np.maximum(density, density[density > 0].min())
    weights: np.ndarray = inverse[_bins(ratings, scale)] / inverse[_bins(train, scale)].mean()
    return weights


def gaussian_kernel() -> Float[np.ndarray, "k"]:
    """The values of a Gaussian at the bins around its center, with sum 1."""
    offsets = np.arange(KERNEL_SIZE) - KERNEL_SIZE // 2
    values = np.exp(-np.square(offsets / KERNEL_SIGMA) / 2)
    kernel: np.ndarray = values / values.sum()
    return kernel


class _Fit:
    """The network sees standardized embeddings and, for the mean loss, standardized ratings; both are folded into its
    first and last layer at the end.
    """

    def __init__(
        self,
        embeddings: Float16[np.ndarray, "n d"],
        targets: Targets,
        train: Int[np.ndarray, "t"],
        validation: Int[np.ndarray, "v"],
        settings: FitSettings,
        device: torch.device,
    ) -> None:
        self.settings, self.device = settings, device
        self.train, self.validation = torch.from_numpy(train), torch.from_numpy(validation)
        self.shift, self.spread = (found.to(device) for found in _standard(torch.from_numpy(embeddings), self.train))
        self.embeddings = torch.from_numpy(embeddings).to(device)
        means = targets.means[train]
        self.center, self.unit = (0.0, 1.0) if self.histogram else (float(means.mean()), float(means.std()) or 1.0)
        self.grades = _grades(targets) if self.histogram else None
        self.targets = (_shares(targets) if self.histogram else self._standardized(targets.means)).to(device)
        self.weights = torch.ones(len(targets.means), device=device)
        if settings.balance != "none":
            self.weights = torch.from_numpy(rarity(targets.means, means, targets.scale)).float().to(device)
        outputs = 1 if self.grades is None else len(self.grades)
        self.head = AestheticHead(
            [embeddings.shape[1], *settings.hidden, outputs], settings.activation, self.grades
        ).to(device)

    @property
    def histogram(self) -> bool:
        return self.settings.loss == "histogram"

    def run(self) -> Fitted:
        optimizer = torch.optim.AdamW(
            self.head.parameters(), self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        patience = self.settings.patience
        schedule = ReduceLROnPlateau(optimizer, factor=0.3, patience=patience // 2 - 1, threshold=0)
        losses: list[float] = []
        best: dict[str, Tensor] = {}
        with tqdm(
            total=self.settings.max_rounds, desc=f"fitting, balance {self.settings.balance}", unit="round"
        ) as bar:
            while len(losses) < self.settings.max_rounds and len(losses) - _best(losses) < patience:
                self._round(optimizer)
                losses.append(self._validation_loss())
                schedule.step(losses[-1])
                if _best(losses) == len(losses):
                    best = {name: value.clone() for name, value in self.head.state_dict().items()}
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.4f}", best=f"{min(losses):.4f}")
            bar.total = len(losses)
        if not any(map(math.isfinite, losses)):
            raise UserError("the fit diverged: the validation loss is not finite; check for damaged embeddings")
        self.head.load_state_dict(best)
        self._fold()
        return Fitted(self.head.eval().requires_grad_(False).cpu(), tuple(losses))

    def _round(self, optimizer: torch.optim.Optimizer) -> None:
        self.head.train()
        for rows in self._batches():
            weights = 1.0 if self.settings.balance == "resample" else self.weights[rows]
            loss = (self._losses(rows) * weights).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _batches(self) -> Iterator[Tensor]:
        """The rows of a round: passes over the training images until there are enough steps for a validation."""
        count = len(self.train)
        size = min(1024, max(16, count // 16))
        steps = max(1, count // size)
        for _ in range(math.ceil(LEAST_STEPS / steps)):
            # The last few images of a pass are skipped: a tiny batch would be a step in a random direction.
            yield from self.train[self._order()[: max(size, steps * size)]].to(self.device).split(size)

    def _order(self) -> Int[Tensor, "t"]:
        """Indices in the training part: each once, or as many sampled by rarity."""
        count = len(self.train)
        if self.settings.balance == "resample":
            return torch.multinomial(self.weights[self.train.to(self.device)].cpu(), count, replacement=True)
        return torch.randperm(count)

    def _losses(self, rows: Tensor) -> Float[Tensor, "b"]:
        outputs = self.head.outputs(self._standardized_embeddings(rows), self.settings.dropout)
        wanted = self.targets[rows]
        return (
            earth_movers_distance(outputs.softmax(dim=1), wanted) if self.histogram else (outputs[:, 0] - wanted) ** 2
        )

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """The validation loss, weighted like training: rare ratings that are sampled more also weigh more here."""
        self.head.eval()
        rows = self.validation.to(self.device)
        total = sum((self._losses(part) * self.weights[part]).sum().item() for part in rows.split(CHUNK))
        return total / self.weights[rows].sum().item()

    def _standardized_embeddings(self, rows: Tensor) -> Float[Tensor, "b d"]:
        return (self.embeddings[rows].float() - self.shift) / self.spread

    def _standardized(self, means: Float[np.ndarray, "n"]) -> Float[Tensor, "n"]:
        return torch.from_numpy((means - self.center) / self.unit).float()

    @torch.no_grad()
    def _fold(self) -> None:
        """Fold the standardization into the layers, so that they map plain embeddings to plain ratings."""
        first, last = self.head.linears[0], self.head.linears[-1]
        first.weight /= self.spread
        first.bias.sub_(first.weight @ self.shift)
        last.weight *= self.unit
        last.bias.mul_(self.unit).add_(self.center)


def _standard(
    embeddings: Float16[Tensor, "n d"], rows: Int[Tensor, "t"]
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """The mean and spread of each dimension of the embeddings in `rows`, computed in chunks."""
    shift, square = torch.zeros(2, embeddings.shape[1], dtype=torch.float64)
    for part in rows.split(CHUNK):
        shift += embeddings[part].double().sum(0) / len(rows)
    for part in rows.split(CHUNK):
        square += (embeddings[part].double() - shift).square().sum(0) / len(rows)
    spread = square.sqrt()
    # A dimension that hardly varies would be amplified: its spread is at least a tenth of the usual one.
    return shift.float(), spread.clamp(min=float(spread.median()) / 10 or 1.0).float()


def _shares(targets: Targets) -> Float[Tensor, "n k"]:
    counts = torch.from_numpy(np.asarray(targets.counts, dtype=np.float32))
    return counts / counts.sum(dim=1, keepdim=True)


def _grades(targets: Targets) -> list[float]:
    if targets.counts is None or targets.grades is None:
        raise ValueError("loss: found histogram, but only mean ratings; expected votes per grade, or loss mean")
    return [float(grade) for grade in targets.grades]


def _bins(ratings: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    low, high = scale
    return np.clip((ratings - low) / (high - low) * RARITY_BINS, 0, RARITY_BINS - 1).astype(np.int64)


def _best(losses: Sequence[float]) -> int:
    """The number of the best round, from 1; 0 if there is none yet."""
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return int(np.argmin(finite)) + 1 if losses else 0
