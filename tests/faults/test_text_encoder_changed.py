"""Weights of the text encoder that change between two evaluations, trained, frozen, or written, show in the images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from finetune_monitor import PromptGrid
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer
from support import tiny

GRID = PromptGrid(["a photo of sks person", "a cat"], [0, 1], steps=2, guidance=4.0, size=(32, 32))

SHIFT = torch.randn(tiny.VOCABULARY, 16, generator=torch.Generator().manual_seed(0))


def trained_then_frozen(encoder: Any) -> None:
    encoder.requires_grad_(True)
    optimizer = torch.optim.SGD(encoder.parameters(), 1.0)
    encoder(torch.arange(8)[None])[0].square().mean().backward()
    with torch.no_grad():
        encoder.get_input_embeddings().weight += SHIFT
    optimizer.step()
    encoder.requires_grad_(False)


def written_in_place(encoder: Any) -> None:
    with torch.no_grad():
        encoder.get_input_embeddings().weight += SHIFT


def written_behind_autograd(encoder: Any) -> None:
    encoder.get_input_embeddings().weight.data += SHIFT


def another_tensor(encoder: Any) -> None:
    weight = encoder.get_input_embeddings().weight
    weight.data = weight.data + SHIFT


def loaded(encoder: Any) -> None:
    found = encoder.state_dict()
    [name] = [name for name in found if name.endswith("token_embedding.weight")]
    encoder.load_state_dict({**found, name: found[name] + SHIFT})


def hooked(encoder: Any) -> None:
    encoder.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.flip(-1))


CHANGES = [trained_then_frozen, written_in_place, written_behind_autograd, another_tensor, loaded, hooked]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", [tiny.stable_diffusion, tiny.sdxl], ids=["sd1", "sdxl"])
def test_images_are_of_the_live_weights(kind: Callable[[], Any], change: Callable[[Any], None]):
    pipeline = kind()
    for name in ("text_encoder", "text_encoder_2"):
        getattr(pipeline, name, torch.nn.Identity()).requires_grad_(False)
    renderer = Renderer(pipeline, GRID)
    before = pixels(renderer)
    change(pipeline.text_encoder)
    after = pixels(renderer)
    assert np.array_equal(after, pixels(Renderer(pipeline, GRID)))
    assert np.abs(after - before).max() > 1


def pixels(renderer: Renderer) -> np.ndarray:
    with isolated(renderer.pipeline):
        return np.stack([np.asarray(image) for image in renderer.render(GRID.cells)]).astype(int)
