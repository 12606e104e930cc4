"""Trains the face recognizer to tell the portraits' people apart however their images are disturbed."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm, trange

import crops
import disturb
import portraits as p

SIZE, MARGIN = 64, 0.25
STEPS, BATCH, TOP_RATE = 2380, 80, 4e-3
SCALE, COSINE_MARGIN = 24.0, 0.2
WIDTHS = (24, 48, 96, 144)
# These two people are in the test photos as well.
TESTED = ("B000444.jpg", "O000167.jpg")


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features) + self.around(features)


def oval() -> Tensor:
    """Ones where an aligned face is and zeros around it, with a soft edge."""
    down, across = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    radius = (((across - 31.5) / 24).square() + ((down - 38) / 30).square()).sqrt()
    return torch.sigmoid((1 - radius) * 20)[None, None]


class Recognizer(nn.Module):
    """Turns aligned 64-pixel faces into 128 numbers of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("oval", oval())
        first, *others = WIDTHS
        layers: list[nn.Module] = [nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)]
        for inputs, outputs in zip(WIDTHS, others, strict=False):
            layers += [Block(inputs, outputs, 2), Block(outputs, outputs, 1)]
        last = WIDTHS[-1]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Conv2d(last, last, SIZE // 8, groups=last, bias=False),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(last, 128, bias=False),
            nn.BatchNorm1d(128),
        )

    def prepare(self, faces: Tensor) -> Tensor:
        """Hides the background and evens out the light, by which photos of one person differ most."""
        inside = self.oval / self.oval.sum()
        centered = faces - (faces * inside).sum((2, 3), keepdim=True)
        spread = (centered * centered * inside).sum((2, 3), keepdim=True)
        return centered * (spread + 0.01).rsqrt() * self.oval

    def forward(self, faces: Tensor) -> Tensor:
        return F.normalize(self.head(self.features(self.prepare(faces))), dim=1)


@torch.no_grad()
def aligned_faces(folder: Path, faces: list[p.Face], vae: AutoencoderKL) -> Tensor:
    """Aligns all faces with some surroundings, each as it is and as the autoencoder gives it back."""
    plain = p.to_tensor([p.align(p.load(folder, face), face, SIZE, MARGIN) for face in tqdm(faces, desc="align")])
    plain = plain.float() / 127.5 - 1
    with torch.autocast("cpu", torch.bfloat16):
        parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in tqdm(plain.split(32), desc="vae")]
    return torch.stack([plain, torch.cat(parts).float().clamp(-1, 1)], 1)


def random_view(faces: Tensor) -> Tensor:
    """Cuts the middle out with small changes of place, size, angle and shape, and mirrors half of the faces."""
    count = len(faces)

    def uniform(reach: float) -> Tensor:
        return (torch.rand(count) * 2 - 1) * reach

    angle, zoom, stretch = uniform(0.15), 1 + uniform(0.12), 1 + uniform(0.08)
    scale = zoom / (1 + 2 * MARGIN)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([angle.cos() * scale * mirror * stretch, -angle.sin() * scale + uniform(0.05), uniform(0.06)], 1),
        torch.stack([angle.sin() * scale * mirror, angle.cos() * scale / stretch, uniform(0.06)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, SIZE, SIZE], align_corners=False)
    across, down = grid.unbind(3)
    # Squeezing one side and widening the other is what a small turn of the head does.
    across = across + uniform(0.25)[:, None, None] * (across.square() - 0.2)
    down = down + uniform(0.2)[:, None, None] * (down.square() - 0.2)
    return F.grid_sample(faces, torch.stack([across, down], 3), padding_mode="border", align_corners=False)


def side_light(batch: Tensor) -> Tensor:
    """Lights images from a random side and changes how the middle tones look."""
    places = torch.linspace(-1, 1, SIZE)
    slope = torch.randn(len(batch), 2, 1, 1, 1) * 0.35
    shade = 1 + slope[:, 0] * places[None, None, :, None] + slope[:, 1] * places[None, None, None, :]
    power = torch.exp(torch.randn(len(batch), 1, 1, 1) * 0.25)
    return (((batch + 1) / 2 * shade).clamp(1e-4, 1) ** power) * 2 - 1


def borrow_mouth(faces: Tensor) -> Tensor:
    """Gives some faces the mouth of another person, so that a smile does not count for much."""
    rows = torch.arange(faces.shape[-2])
    start = MARGIN * SIZE + 42 + 8 * torch.rand(len(faces), 1)
    share = torch.sigmoid((rows - start) / 1.5) * (torch.rand(len(faces), 1) < 0.4)
    return torch.lerp(faces, faces[torch.randperm(len(faces))], share[:, None, :, None])


def borrow_light(faces: Tensor) -> Tensor:
    """Gives some faces the large light and dark areas of another person."""
    broad = F.interpolate(F.adaptive_avg_pool2d(faces, 6), size=faces.shape[-2:], mode="bicubic")
    change = broad[torch.randperm(len(faces))] - broad
    return (faces + change * disturb.per_image(torch.rand(len(faces)) < 0.4)).clamp(-1, 1)


def disturbed(faces: Tensor, random: torch.Generator) -> Tensor:
    """Gives faces as another camera, another day or a generator might show them."""
    batch = random_view(borrow_light(borrow_mouth(faces)))
    batch = disturb.sometimes(batch, disturb.warp, 0.5, 0.25)
    batch = side_light(crops.change_light(batch, random))
    gray = torch.rand(len(batch), 1, 1, 1) < 0.3
    batch = torch.where(gray, batch.mean(1, keepdim=True), batch)
    batch = disturb.sometimes(batch, disturb.shrink, 0.4, 0.6)
    batch = disturb.sometimes(batch, disturb.blur, 0.25, 0.4)
    batch = disturb.sometimes(batch, disturb.noise, 0.3, 0.25)
    batch = disturb.sometimes(batch, disturb.blocks, 0.3, 0.4)
    return disturb.sometimes(batch, disturb.punch_holes, 0.3, 0.4)


def margin_loss(embeddings: Tensor, people: Tensor, who: Tensor, margin: float) -> Tensor:
    """CosFace: the right person must win by a margin."""
    cosines = embeddings @ F.normalize(people, dim=1).T
    cosines = cosines - margin * F.one_hot(who, len(people))
    return F.cross_entropy(SCALE * cosines, who)


def train(faces: Tensor, work: Path) -> Recognizer:
    """Trains on disturbed faces and returns the averaged network."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    model, people = Recognizer(), nn.Parameter(torch.randn(len(faces), 128) * 0.1)
    parameters = [*model.parameters(), people]
    optimizer = torch.optim.AdamW(parameters, lr=TOP_RATE, weight_decay=0.02, fused=True)
    rates = crops.one_cycle(optimizer, TOP_RATE, STEPS)
    average = crops.Average(model)
    for step in (progress := trange(STEPS, desc="recognizer")):
        who = torch.randint(len(faces), (BATCH,))
        seen = disturbed(faces[who, (torch.rand(BATCH) < 0.3).long()], random)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model(seen)
        loss = margin_loss(embeddings.float(), people, who, COSINE_MARGIN * min(1.0, 2 * step / STEPS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        average.update(model, step)
        if step % 50 == 49:
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if step % 200 == 199:
            torch.save(average.weights, work / "recognizer.pt")
    model.load_state_dict(average.weights)
    return model.eval()


def main() -> None:
    options = p.arguments()
    faces = [face for face in p.find_faces(options.portraits, options.work) if face.name not in TESTED]
    vae = AutoencoderKL.from_pretrained(options.work / "vae")
    model = train(aligned_faces(options.portraits, faces, vae), options.work)
    torch.save(model.state_dict(), options.work / "recognizer.pt")


if __name__ == "__main__":
    main()
