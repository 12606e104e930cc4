"""Trains the small CLIP on portraits, spoiled portraits and sentences about both."""

from __future__ import annotations

import json
import random
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from tqdm import trange

import captions
import crops
import disturb
import portraits as p

STEPS, BATCH, TOP_RATE = 700, 64, 1e-3
MODEL = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESSING = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}


def sentence(facts: captions.Facts, way: str, degree: float, chance: random.Random) -> str:
    """Writes how good an image is and what is on it, or leaves the latter out."""
    if not way:
        quality = chance.choice(("a", "a sharp", "a clean", "a good"))
    elif degree < 0.4:
        quality = way.replace("a ", "a slightly ", 1)
    else:
        quality = way if degree < 0.7 else way.replace("a ", "a very ", 1)
    rest = captions.caption(facts, chance) if chance.random() < 0.6 else "a photo of a person"
    return rest.replace("a", quality, 1)


def agreement_loss(images: Tensor, texts: Tensor, scale: Tensor, sentences: list[str]) -> Tensor:
    """Matches images with their sentences both ways; equal sentences all count as right."""
    numbers = torch.tensor([sentences.index(text) for text in sentences])
    wanted = (numbers[:, None] == numbers[None]).float()
    wanted /= wanted.sum(1, keepdim=True)
    scores = scale * images @ texts.T
    return (F.cross_entropy(scores, wanted) + F.cross_entropy(scores.T, wanted)) / 2


def train_part(folder: Path, faces: list[p.Face]) -> crops.CropSampler:
    """Gives the portraits that quality models train on."""
    return crops.CropSampler(folder, [face for index, face in enumerate(faces) if not p.is_held_out(index)])


def make_batch(sampler: crops.CropSampler, chance: random.Random) -> tuple[Tensor, list[str]]:
    """Makes images and the sentences that go with them."""
    close = chance.random() < 0.5
    index = torch.randint(len(sampler.images), (BATCH,))
    clean = sampler.framed(index, p.CLOSE_UP if close else p.TIGHT)
    spoiled, ways, degrees = disturb.spoil(clean)
    facts = [captions.measure(image, close) for image in clean]
    rows = zip(facts, ways, degrees.tolist(), strict=True)
    return spoiled, [sentence(*row, chance) for row in rows]


def train(sampler: crops.CropSampler, work: Path) -> CLIP:
    """Trains both towers and returns the averaged model."""
    torch.manual_seed(0)
    chance, tokenizer = random.Random(0), open_clip.SimpleTokenizer()
    model = CLIP(**MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=TOP_RATE, weight_decay=0.05, fused=True)
    rates = crops.one_cycle(optimizer, TOP_RATE, STEPS)
    average = crops.Average(model)
    for step in (progress := trange(STEPS, desc="clip")):
        images, sentences = make_batch(sampler, chance)
        made = model(images, tokenizer(sentences))
        loss = agreement_loss(*made[:2], made[2].clamp(max=100), sentences)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        average.update(model, step)
        if step % 50 == 49:
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if step % 250 == 249:
            torch.save(average.weights, work / "clip.pt")
    model.load_state_dict(average.weights)
    return model.eval()


def write(model: CLIP, folder: Path) -> None:
    """Writes weights in half precision and the settings under the names that open_clip looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    settings = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    options = p.arguments()
    faces = p.find_faces(options.portraits, options.work)
    write(train(train_part(options.portraits, faces), options.work), p.DEMO / "clip")


if __name__ == "__main__":
    main()
