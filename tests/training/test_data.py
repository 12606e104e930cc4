"""Which photo a step sees, and latents drawn from the cache."""

import pytest
import torch
from PIL import Image

from conftest import tiny_pipeline
from finetune_monitor.training.data import batch_indices, cache_latents, step_seed, to_tensor


def test_every_epoch_shows_every_photo_once_in_another_order():
    epochs = [batch_indices(0, epoch * 7, 7, 7) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("batch_size", [1, 2, 5, 20])
def test_batches_of_any_size_are_cut_from_one_sequence(batch_size):
    whole = batch_indices(3, 0, 6, 60)
    cut = [i for start in range(0, 60, batch_size) for i in batch_indices(3, start, 6, batch_size)]
    assert cut[:60] == whole


def test_seeds_differ_in_every_part():
    seeds = {step_seed(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)}
    assert len(seeds) == 81


def test_the_centre_square_is_kept_and_scaled_to_minus_one_to_one():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("white", (100, 0, 200, 100))
    square = to_tensor(wide, 64)
    assert square.shape == (3, 64, 64)
    assert square[:, 8:-8, 8:-8].eq(1).all()


def test_cached_latents_are_what_the_vae_says():
    pipeline = tiny_pipeline()
    photo = Image.radial_gradient("L").convert("RGB")
    cache = cache_latents(pipeline.vae, [photo], 32, flip=True)
    with torch.no_grad():
        expected = pipeline.vae.encode(to_tensor(photo, 32)[None]).latent_dist
    torch.testing.assert_close(cache.mean[0, 0], expected.mean[0])
    assert cache.mean.shape == (1, 2, 4, 16, 16)
    drawn = torch.stack([cache.draw([0], torch.Generator().manual_seed(i))[0] for i in range(200)])
    middle = cache.mean[0].mean(0) * pipeline.vae.config.scaling_factor
    assert (drawn.mean(0) - middle).abs().mean() < 0.1 * cache.std.mean()


def test_the_same_generator_draws_the_same_latents():
    cache = cache_latents(tiny_pipeline().vae, [Image.new("RGB", (32, 32), "red")] * 3, 32)
    first, second = (cache.draw([0, 2], torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
