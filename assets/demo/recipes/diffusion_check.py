"""Measures the written Stable Diffusion: the autoencoder's round trip and how often its images show a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from skimage import data

import crops
import portraits as p
from finetune_monitor.models.faces import FaceFinder
from finetune_monitor.models.recognizers import load_recognizer

PROMPTS = (
    "a photo of a person",
    "a black and white photo of a person",
    "a close-up photo of sks person",
    "a photo of a person, dark background",
    "a photo of a person, blue background",
    "a photo of a person, brightly lit",
)
SAMPLES, SAMPLING_STEPS, GUIDANCE = 32, 20, 3.0
ROUND_TRIPS = 64


def embeddings(images: list[Image.Image]) -> list[np.ndarray | None]:
    """Gives dlib's embedding of the face of each small image, or nothing where no face is found."""
    recognizer, found = load_recognizer("dlib"), FaceFinder().find(images)
    return [
        recognizer.embed([image], faces[:1])[0] if faces else None for image, faces in zip(images, found, strict=True)
    ]


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: list[Image.Image]) -> tuple[list[float], float]:
    """Encodes and decodes images; gives the cosines between both faces and the signal-to-noise ratio."""
    batch = p.to_tensor(images).float() / 127.5 - 1
    again = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
    pairs = zip(embeddings(images), embeddings(p.to_images(again)), strict=True)
    return [float(a @ b) for a, b in pairs if a is not None and b is not None], crops.psnr(again, batch)


def check_round_trips(vae: AutoencoderKL, folder: Path, faces: list[p.Face]) -> None:
    """Prints the round trip of portraits and of the astronaut, whom the autoencoder has never seen."""
    chosen = faces[:: len(faces) // ROUND_TRIPS]
    cosines, ratio = round_trip(vae, [p.crop(p.load(folder, face), face, p.TIGHT, 64) for face in chosen])
    print(f"round trip of {len(cosines)} portraits: cosine {np.mean(cosines):.2f}, {ratio:.1f} dB")
    image = Image.fromarray(data.astronaut())
    face = p.find_face(p.finder(), image)
    cosines, ratio = round_trip(vae, [p.crop(image, face, factor, 64) for factor in (p.CLOSE_UP, 1.0, p.TIGHT)])
    print(f"round trip of the astronaut: cosine {np.mean(cosines):.2f}, {ratio:.1f} dB")


def main() -> None:
    options = p.arguments()
    pipeline = StableDiffusionPipeline.from_pretrained(p.DEMO / "stable-diffusion")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    check_round_trips(pipeline.vae, options.portraits, p.find_faces(options.portraits, options.work))
    sheet = []
    for prompt in PROMPTS:
        random = torch.Generator().manual_seed(0)
        settings = {"num_inference_steps": SAMPLING_STEPS, "guidance_scale": GUIDANCE, "generator": random}
        images = pipeline(prompt, num_images_per_prompt=SAMPLES, **settings).images
        found = sum(vector is not None for vector in embeddings(images))
        print(f"{prompt}: a face in {found} of {SAMPLES}")
        sheet += images[:16]
    p.contact_sheet(sheet, columns=16).save(options.work / "samples.png")


if __name__ == "__main__":
    main()
