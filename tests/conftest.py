"""Shared fixtures: small random pipelines, photos, and the demo's real models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("finetune_monitor", "shapes.checked")  # shapes in signatures are checked while the tests run

from diffusers import StableDiffusionPipeline  # noqa: E402
from PIL import Image  # noqa: E402
from skimage.data import astronaut  # noqa: E402

from heads import write_clip  # noqa: E402
from tiny import stable_diffusion as tiny_pipeline  # noqa: E402

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "assets/demo"


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a folder in diffusers layout."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as a folder in open_clip's layout."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three crops of the astronaut's photo."""
    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
    for index, box in enumerate([(0, 0, 250, 250), (30, 10, 230, 210), (50, 20, 220, 190)]):
        face.crop(box).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def write_config(tmp_path: Path, tiny_model: Path, photos: Path) -> Callable[[], Path]:
    """Writes a config for a few steps on the tiny pipeline."""

    def write() -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(tiny_config(tmp_path, tiny_model, photos))
        return path

    return write


def tiny_config(folder: Path, model: Path, photos: Path) -> str:
    """A few steps on the tiny pipeline, in `folder`/run."""
    return (
        f"model: {model}\noutput_dir: {folder / 'run'}\n"
        f"data: {{instance_images: {photos}, instance_prompt: a photo of sks person, resolution: 64}}\n"
        "train: {max_steps: 6, prior_loss_weight: 0, rank: 2, checkpoint_every: 2}\n"
        "monitor:\n  every: 3\n  grid: {prompts: [a photo of sks person], seeds: [0, 1], steps: 2}\n"
        f"  metrics: {{face_similarity: {{recogniser: {DEMO / 'recogniser.onnx'}}}, aesthetic: null}}\n"
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
