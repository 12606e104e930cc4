"""Shared fixtures: small random pipelines, photos, and the demo's real models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("finetune_monitor", "shapes.checked")  # shapes in signatures are checked while the tests run

import torch  # noqa: E402
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from PIL import Image  # noqa: E402
from skimage.data import astronaut  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "assets/demo"
TOKENIZER = DEMO / "stable-diffusion/tokenizer"


def tiny_pipeline(seed: int = 0, prediction_type: str = "epsilon", dropout: float = 0.0) -> StableDiffusionPipeline:
    """A Stable Diffusion with random weights at 32 px: right in every shape, milliseconds a step."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        dropout=dropout,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    text = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


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
        path.write_text(
            f"model: {tiny_model}\noutput_dir: {tmp_path / 'run'}\n"
            f"data: {{instance_images: {photos}, instance_prompt: a photo of sks person, resolution: 64}}\n"
            "train: {max_steps: 6, prior_loss_weight: 0, rank: 2, checkpoint_every: 2}\n"
            "monitor:\n  every: 3\n  grid: {prompts: [a photo of sks person], seeds: [0, 1], steps: 2}\n"
            f"  metrics: {{face_similarity: {{recogniser: {DEMO / 'recogniser.onnx'}}}, aesthetic: null}}\n"
        )
        return path

    return write


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
