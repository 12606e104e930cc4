"""Find faces with the MTCNN cascade (Zhang et al. 2016), in batches of images and candidates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from facenet_pytorch import MTCNN
from facenet_pytorch.models.mtcnn import PNet
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.ops import batched_nms

CELL, STRIDE = 12, 2
"""Side of a P-Net cell, and the distance between cells, in pixels of the scaled image."""

RNET_SIZE, ONET_SIZE = 24, 48

LEVEL_OVERLAP, OVERLAP = 0.5, 0.7
"""Overlap above which the less likely of two candidates is dropped: within a pyramid level, and overall."""

PIXELS_ON_CPU, PIXELS = 8 * 512 * 512, 32 * 512 * 512
"""Pixels of the images per batch. Measured on two cores at 512 px: 39 ms per image one at a time, 30 in batches of two,
27 of four, and 26 of eight.
"""

CROPS_ON_CPU, CROPS = 128, 1024
"""Candidates per forward pass of R-Net or O-Net."""


@dataclass(frozen=True)
class Detections:
    """The faces of one image in pixel coordinates, most likely first.

    boxes: left, top, right, bottom; may extend beyond the image's edge.
    probabilities: 0 to 1.
    landmarks: left eye, right eye, nose, left and right corners of the mouth, as (x, y).
    """

    boxes: Float[np.ndarray, "n 4"]
    probabilities: Float[np.ndarray, "n"]
    landmarks: Float[np.ndarray, "n 5 2"]


@dataclass(frozen=True)
class _Candidates:
    """Boxes that may contain a face, their probabilities, and the index of each one's image."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    images: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, chosen: Tensor) -> "_Candidates":
        return _Candidates(self.boxes[chosen], self.scores[chosen], self.images[chosen])


class Detector:
    """The networks, thresholds, and sizes of facenet-pytorch's `MTCNN`, without its loops over images and candidates.

    It finds the same faces as `MTCNN(keep_all=True).detect(image, landmarks=True)` for each image.
    """

    def __init__(self, mtcnn: MTCNN) -> None:
        self._pnet, self._rnet, self._onet = (
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
            for network in (mtcnn.pnet, mtcnn.rnet, mtcnn.onet)
        )
        self._thresholds, self._factor = mtcnn.thresholds, mtcnn.factor
        self._smallest_face, self._device = mtcnn.min_face_size, mtcnn.device
        on_cpu = self._device.type == "cpu"
        self._pixels, self._crops = (PIXELS_ON_CPU, CROPS_ON_CPU) if on_cpu else (PIXELS, CROPS)

    def detect(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Detections]:
        """The faces of each RGB image; all images have the same size. The arrays are empty if there are no faces."""
        searches = self.searches(images)
        return [found for search in searches for found in search.detect(range(search.count))]

    def searches(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Iterator["Search"]:
        """One search for each batch of RGB images, which all have the same size."""
        step = max(1, self._pixels // (images[0].shape[0] * images[0].shape[1])) if images else 1
        for start in range(0, len(images), step):
            yield Search(self, np.stack(images[start : start + step]))

    def table_of(self, images: UInt8[np.ndarray, "b h w 3"]) -> Int[Tensor, "b h1 w1 3"]:
        """The summed-area table of images of the same size, on the detector's device."""
        return summed_area_table(torch.from_numpy(images).to(self._device))

    def scales(self, short_side: int) -> list[float]:
        """The scales of an image, the one with the largest faces first."""
        return pyramid(short_side, self._smallest_face, self._factor)[::-1]

    def slide(self, table: Int[Tensor, "b h w 3"], images: Int[Tensor, "n"], scale: float) -> "_Level":
        """What P-Net, sliding over the shrunken images, takes for faces."""
        height, width = table.shape[1] - 1, table.shape[2] - 1
        shrunk = shrunken(table, images, (int(height * scale + 1), int(width * scale + 1)))
        shifts, probabilities = _slide(self._pnet, _normalized(shrunk))
        cells, of_cells = _cells(shifts, probabilities, scale, self._thresholds[0])
        return _Level(_Candidates(cells.boxes, cells.scores, images[cells.images]), of_cells)

    def judge(
        self, table: Int[Tensor, "b h w 3"], levels: Sequence["_Level"]
    ) -> tuple[_Candidates, Float[Tensor, "n 5 2"]]:
        """The faces among the candidates of a pyramid's levels, and their landmarks."""
        found, landmarks = self._proposed(table, levels), torch.zeros(0, 5, 2)
        if len(found):
            found = self._refine(table, found)
        if len(found):
            found, landmarks = self._locate(table, found)
        return found, landmarks

    def _proposed(self, table: Int[Tensor, "b h w 3"], levels: Sequence["_Level"]) -> _Candidates:
        """The candidates as squares, without those that overlap a more likely one."""
        nobody = _none(self._device)
        found = _concatenated([nobody, *(level.candidates for level in levels)])
        shift = torch.cat([nobody.boxes, *(level.shifts for level in levels)])
        groups = [level.candidates.images + place * len(table) for place, level in enumerate(levels)]
        kept = batched_nms(found.boxes, found.scores, torch.cat([nobody.images, *groups]), LEVEL_OVERLAP)
        found, shift = found[kept], shift[kept]
        kept = batched_nms(found.boxes, found.scores, found.images, OVERLAP)
        found, shift = found[kept], shift[kept]
        return _within(_Candidates(_square(_shifted(found.boxes, shift, 0)), found.scores, found.images), table)

    def _refine(self, table: Int[Tensor, "b h w 3"], candidates: _Candidates) -> _Candidates:
        """The squares that R-Net confirms as faces, with its corrections applied."""
        shifts, probabilities = self._judge(self._rnet, table, candidates, RNET_SIZE)
        found, (shift,) = _likely(candidates, probabilities, self._thresholds[1], shifts)
        kept = batched_nms(found.boxes, found.scores, found.images, OVERLAP)
        found, shift = found[kept], shift[kept]
        return _within(_Candidates(_square(_shifted(found.boxes, shift, 1)), found.scores, found.images), table)

    def _locate(
        self, table: Int[Tensor, "b h w 3"], candidates: _Candidates
    ) -> tuple[_Candidates, Float[Tensor, "n 5 2"]]:
        """The candidates that O-Net confirms as faces, with their landmarks."""
        shifts, points, probabilities = self._judge(self._onet, table, candidates, ONET_SIZE)
        found, (shift, point) = _likely(candidates, probabilities, self._thresholds[2], shifts, points)
        sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
        landmarks = point.view(-1, 2, 5).mT * sides[:, None] + found.boxes[:, None, :2] - 1
        found = _Candidates(_shifted(found.boxes, shift, 1), found.scores, found.images)
        kept = _not_nested(found)
        return found[kept], landmarks[kept]

    def _judge(
        self, network: nn.Module, table: Int[Tensor, "b h w 3"], candidates: _Candidates, size: int
    ) -> list[Tensor]:
        """The outputs of R-Net or O-Net for every candidate."""
        boxes = _whole_pixels(candidates.boxes, table)
        parts = zip(boxes.split(self._crops), candidates.images.split(self._crops), strict=True)
        outputs = [network(_normalized(area_pool(table, images, part, (size, size)))) for part, images in parts]
        return [torch.cat(output) for output in zip(*outputs, strict=True)]


@dataclass(frozen=True)
class _Level:
    """The candidates of one level of a pyramid, and P-Net's shift of each."""

    candidates: _Candidates
    shifts: Float[Tensor, "n 4"]

    def of(self, images: Int[Tensor, "n"]) -> "_Level":
        """Only those of some images."""
        chosen = torch.isin(self.candidates.images, images)
        return _Level(self.candidates[chosen], self.shifts[chosen])


class Search:
    """A search for faces in images of the same size, from large faces to small ones.

    An image is looked through only once at each level of its pyramid.

    Attributes:
        count: of the images.
    """

    def __init__(self, detector: Detector, images: UInt8[np.ndarray, "b h w 3"]) -> None:
        self.count = len(images)
        self._detector, self._table = detector, detector.table_of(images)
        self._short_side = min(images.shape[1:3])
        self._scales = detector.scales(self._short_side)
        self._levels: list[_Level] = []

    @property
    def is_complete(self) -> bool:
        """Whether no smaller faces can be found."""
        return len(self._levels) == len(self._scales)

    @torch.inference_mode()
    def detect(self, chosen: Sequence[int], smallest: float = 0.0) -> list[Detections]:
        """The faces of some of the images, by their index; in later calls, only of images of the call before.

        Args:
            smallest: faces below this share of the shorter side may be missed; the larger it is, the faster.
        """
        images = torch.tensor(chosen, dtype=torch.long, device=self._table.device)
        for scale in self._scales[len(self._levels) : _levels_for(self._scales, smallest * self._short_side)]:
            self._levels.append(self._detector.slide(self._table, images, scale))
        found, landmarks = self._detector.judge(self._table, [level.of(images) for level in reversed(self._levels)])
        return _by_image(found, landmarks, chosen)


def _levels_for(scales: list[float], smallest: float) -> int:
    """How many levels, from the one with the largest faces on, it takes to find faces from so many pixels up."""
    return min(sum(CELL / scale > smallest for scale in scales) + 1, len(scales))


def pyramid(short_side: int, smallest_face: int, factor: float) -> list[float]:
    """Scales at which faces from `smallest_face` pixels up to the short side fill one cell of P-Net."""
    scales, scale = [], CELL / smallest_face
    while short_side * scale >= CELL:
        scales.append(scale)
        scale *= factor
    return scales


def summed_area_table(images: UInt8[Tensor, "b h w 3"]) -> Int[Tensor, "b h+1 w+1 3"]:
    """Sums over all pixels above and to the left (Crow 1984); four lookups give the sum over any rectangle."""
    count, height, width, channels = images.shape
    if images.device.type == "cpu":
        sums = np.zeros((count, height + 1, width + 1, channels), dtype=np.int32)
        for image, own in zip(images.numpy(), sums[:, 1:, 1:], strict=True):
            _add_up(image, own)
        return torch.from_numpy(sums)
    table = torch.zeros(count, height + 1, width + 1, channels, dtype=torch.int32, device=images.device)
    table[:, 1:, 1:] = images
    return table.cumsum_(1).cumsum_(2)


def _add_up(image: UInt8[np.ndarray, "h w 3"], sums: Int[np.ndarray, "h w 3"]) -> None:
    """Write the sums of one image, which stay in the processor's cache; torch takes twice as long for many at once."""
    np.cumsum(image, axis=1, dtype=np.int32, out=sums)
    for row in range(1, len(sums)):
        sums[row] += sums[row - 1]


def shrunken(
    table: Int[Tensor, "b h w 3"], images: Int[Tensor, "n"], size: tuple[int, int]
) -> Float[Tensor, "n 3 rows columns"]:
    """Entire images resampled to a smaller size, as by `area_pool`; all share their edges, which saves lookups."""
    corner = torch.tensor([[0, 0, table.shape[2] - 1, table.shape[1] - 1]], device=table.device)
    top, bottom = (edge[0] for edge in _edges(corner[:, 1], corner[:, 3], size[0]))
    left, right = (edge[0] for edge in _edges(corner[:, 0], corner[:, 2], size[1]))
    pixels = ((bottom - top)[:, None] * (right - left))[..., None]
    found = torch.empty(len(images), *size, table.shape[3], device=table.device)
    for image, out in zip(images.tolist(), found, strict=True):
        sums = table[image]
        rows = _taken(sums, bottom, 0).sub_(_taken(sums, top, 0))
        torch.div(_taken(rows, right, 1).sub_(_taken(rows, left, 1)), pixels, out=out)
    return found.permute(0, 3, 1, 2)


def _taken(sums: Int[Tensor, "..."], index: Int[Tensor, "n"], axis: int) -> Int[Tensor, "..."]:
    """The entries at these indices; on a CPU, NumPy takes a quarter of torch's time for colors."""
    if sums.device.type == "cpu":
        return torch.from_numpy(sums.numpy().take(index.numpy(), axis=axis))
    return sums.index_select(axis, index)


def area_pool(
    table: Int[Tensor, "b h w 3"],
    images: Int[Tensor, "n"],
    boxes: Int[Tensor, "n 4"],
    size: tuple[int, int],
) -> Float[Tensor, "n 3 rows columns"]:
    """The content of each box resampled to another size, as with `adaptive_avg_pool2d`, 0 to 255.

    boxes: left, top, right, bottom in whole pixels, inside the image and not empty.
    """
    top, bottom = _edges(boxes[:, 1], boxes[:, 3], size[0])
    left, right = _edges(boxes[:, 0], boxes[:, 2], size[1])
    _, height, width, channels = table.shape
    flat = table.view(-1, channels)
    first = images[:, None] * height

    def corner(row: Tensor, column: Tensor) -> Tensor:
        index = ((first + row) * width)[:, :, None] + column[:, None, :]
        return _taken(flat, index.view(-1), 0)

    total = corner(bottom, right)
    total -= corner(top, right)
    total -= corner(bottom, left)
    total += corner(top, left)
    pixels = (bottom - top)[:, :, None] * (right - left)[:, None, :]
    return (total.view(*pixels.shape, channels) / pixels[..., None]).permute(0, 3, 1, 2)


def _edges(start: Int[Tensor, "n"], end: Int[Tensor, "n"], parts: int) -> tuple[Int[Tensor, "n p"], Int[Tensor, "n p"]]:
    """The first pixel, and one past the last, of each part of an interval; uneven parts overlap by a pixel."""
    index = torch.arange(parts, device=start.device)
    length = (end - start)[:, None]
    return start[:, None] + index * length // parts, start[:, None] + ((index + 1) * length + parts - 1) // parts


def _normalized(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels from 0 to 255, normalized as MTCNN's networks expect."""
    return pixels.sub_(127.5).mul_(1 / 128)


def _slide(pnet: PNet, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b 4 y x"], Float[Tensor, "b y x"]]:
    """P-Net's forward pass: the shift of each cell, and the probability that it is a face.

    It differs from facenet-pytorch only in the PReLU and the pooling of the large first layer: applied to entire rows
    of pixels with their ten channels, they take a third of the time on a CPU.
    """
    x = pnet.conv1(images).permute(0, 2, 3, 1)
    x = F.prelu(x.flatten(0, 1).flatten(1), pnet.prelu1.weight.repeat(x.shape[2])).view(x.shape)
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2), value=-torch.inf)
    x = torch.maximum(x[:, ::2], x[:, 1::2])
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2]).permute(0, 3, 1, 2)
    x = pnet.prelu3(pnet.conv3(pnet.prelu2(pnet.conv2(x))))
    return pnet.conv4_2(x), pnet.conv4_1(x).softmax(dim=1)[:, 1]


def _cells(
    shifts: Float[Tensor, "b 4 h w"], probabilities: Float[Tensor, "b h w"], scale: float, threshold: float
) -> tuple[_Candidates, Float[Tensor, "n 4"]]:
    """The likely cells as boxes in the unscaled image, and P-Net's shift of each."""
    image, row, column = (probabilities >= threshold).nonzero(as_tuple=True)
    corner = torch.stack([column, row], dim=1).float() * STRIDE
    boxes = torch.cat([(corner + 1) / scale, (corner + CELL) / scale], dim=1).floor()
    return _Candidates(boxes, probabilities[image, row, column], image), shifts[image, :, row, column]


def _none(device: torch.device) -> _Candidates:
    empty = torch.zeros(0, 4, device=device)
    return _Candidates(empty, empty[:, 0], empty[:, 0].long())


def _concatenated(parts: list[_Candidates]) -> _Candidates:
    return _Candidates(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.images for part in parts]),
    )


def _whole_pixels(boxes: Float[Tensor, "n 4"], table: Int[Tensor, "b h w 3"]) -> Int[Tensor, "n 4"]:
    """The part of each box inside the image, in coordinates that start at 1 and include the last pixel."""
    start = boxes[:, :2].long().clamp(min=1) - 1
    right, bottom = (boxes[:, axis + 2].long().clamp(max=table.shape[2 - axis] - 1) for axis in (0, 1))
    return torch.column_stack([start, right, bottom])


def _within(candidates: _Candidates, table: Int[Tensor, "b h w 3"]) -> _Candidates:
    """The candidates that cover at least one pixel of the image."""
    boxes = _whole_pixels(candidates.boxes, table)
    return candidates[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]


def _likely(
    candidates: _Candidates, probabilities: Float[Tensor, "n 2"], threshold: float, *others: Tensor
) -> tuple[_Candidates, list[Tensor]]:
    """The candidates above the threshold with their new scores, and their rows of the network's other outputs."""
    scores = probabilities[:, 1]
    chosen = (scores > threshold).nonzero()[:, 0]
    kept = _Candidates(candidates.boxes[chosen], scores[chosen], candidates.images[chosen])
    return kept, [other[chosen] for other in others]


def _shifted(boxes: Float[Tensor, "n 4"], shifts: Float[Tensor, "n 4"], border: int) -> Float[Tensor, "n 4"]:
    """The boxes with each edge moved by a share of the box's side; R-Net and O-Net include a border of one pixel."""
    sides = boxes[:, 2:] - boxes[:, :2] + border
    return boxes + shifts * sides.repeat(1, 2)


def _square(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Squares with the same centers and the longer side of each box."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    start = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([start, start + longer], dim=1)


def _not_nested(found: _Candidates) -> Tensor:
    """The indices kept by the last suppression; overlap relative to the smaller box also drops parts of faces."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
    areas = sides.prod(dim=1)
    start = torch.maximum(found.boxes[:, None, :2], found.boxes[None, :, :2])
    end = torch.minimum(found.boxes[:, None, 2:], found.boxes[None, :, 2:])
    shared = (end - start + 1).clamp(min=0).prod(dim=2) / torch.minimum(areas[:, None], areas)
    rivals = ((shared > OVERLAP) & (found.images[:, None] == found.images)).cpu()
    order = found.scores.argsort(stable=True).flip(0)  # of equal scores, the last one, as with NumPy's argsort
    kept: list[int] = []
    for index in order.tolist():
        if not rivals[index, kept].any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long, device=found.boxes.device)


def _by_image(found: _Candidates, landmarks: Float[Tensor, "n 5 2"], chosen: Sequence[int]) -> list[Detections]:
    images, boxes, scores, points = (
        tensor.cpu().numpy() for tensor in (found.images, found.boxes, found.scores, landmarks)
    )
    rows = [images == index for index in chosen]
    return [Detections(boxes[row], scores[row], points[row]) for row in rows]
