"""Latents drawn from the cache, and from photos that workers read ahead."""

import multiprocessing
import os

import pytest
import torch
from PIL import Image

from finetune_monitor.training import latents
from finetune_monitor.training.data import Photos, Views, batch_indices
from finetune_monitor.training.latents import CachedLatents, FreshLatents, cache_latents, cache_size, open_latents
from support.tiny import stable_diffusion as tiny_pipeline


@pytest.fixture
def vae():
    return tiny_pipeline().vae


@pytest.fixture
def paths(photos):
    return sorted(photos.iterdir())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cached_latents_are_what_the_vae_says(vae, tmp_path):
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "a.png")
    sequence = Photos([tmp_path / "a.png"], Views(32, flip=True), seed=0)
    cache = cache_latents(vae, sequence, batch_size=1)
    with torch.no_grad():
        expected = vae.encode(sequence.all_views(0).pixels).latent_dist
    torch.testing.assert_close(cache.mean[0], expected.mean)
    assert cache.mean.shape == (1, 2, 4, 16, 16)
    drawn = torch.stack([cache.draw(0, generator(i)).latents[0] for i in range(200)])
    middle = cache.mean[0].mean(0) * vae.config.scaling_factor
    assert (drawn.mean(0) - middle).abs().mean() < 0.1 * cache.std.mean()


def test_a_cache_is_as_large_as_it_was_said_to_be(vae, paths):
    sequence = Photos(paths, Views(32, crop=True), seed=0)
    cache = cache_latents(vae, sequence, batch_size=1)
    assert cache.mean.nbytes + cache.std.nbytes == cache_size(vae, sequence)


@pytest.mark.parametrize(
    ("caching", "limit", "expected"),
    [
        ("auto", 10**9, CachedLatents),
        ("auto", 10, FreshLatents),
        ("always", 10, CachedLatents),
        ("never", 10**9, FreshLatents),
    ],
)
def test_what_does_not_fit_is_not_cached_and_said(vae, paths, monkeypatch, caplog, caching, limit, expected):
    monkeypatch.setattr(latents, "CACHE_LIMIT", limit)
    found = open_latents(vae, Photos(paths, Views(32), 0), 1, caching, workers=0)
    assert isinstance(found, expected)
    assert ("above the limit" in caplog.text) == (caching == "auto" and expected is FreshLatents)


@pytest.mark.parametrize("views", [Views(32), Views(32, crop=True, flip=True)])
def test_the_same_turn_and_generator_draw_the_same_latents(vae, paths, views):
    for found in (cache_latents(vae, Photos(paths, views, 0), 2), FreshLatents(vae, Photos(paths, views, 0), 2, 0)):
        first, other, again = (found.draw(turn, generator(5)).latents for turn in (3, 4, 3))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_without_augmentation_fresh_latents_are_the_cached_ones(vae, paths):
    sequence = Photos(paths, Views(32), seed=3)
    cached, fresh = cache_latents(vae, sequence, 2), FreshLatents(vae, sequence, 2, workers=0)
    for turn in range(4):
        indices = batch_indices(3, 2 * turn, len(paths), 2)
        with torch.no_grad():
            pixels = torch.stack([sequence[2 * turn + i].pixels for i in range(len(indices))])
            torch.testing.assert_close(cached.mean[indices, 0], vae.encode(pixels).latent_dist.mean)
        drawn = [each.draw(turn, generator()) for each in (fresh, cached)]
        assert drawn[0].latents.shape == drawn[1].latents.shape
        assert torch.equal(drawn[0].sizes, drawn[1].sizes)


@pytest.mark.slow
def test_workers_change_nothing_and_end_when_told_to(vae, paths):
    sequence = Photos(paths, Views(32, crop=True, flip=True), seed=0)
    alone, helped = (FreshLatents(vae, sequence, 2, workers) for workers in (0, 2))
    torch.manual_seed(0)
    for turn in (5, 6, 7, 2):  # also where a turn is not the next one
        pairs = zip(alone.draw(turn, generator(turn)), helped.draw(turn, generator(turn)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.initial_seed() == 0
    assert torch.equal(torch.rand(3), torch.rand(3, generator=generator(0)))  # the global generator was left alone
    children = multiprocessing.active_children()
    assert len(children) == min(2, os.cpu_count() or 1)
    helped.close()
    assert multiprocessing.active_children() == []
