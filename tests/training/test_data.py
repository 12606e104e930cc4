"""Which photo a step sees, and how it is cut."""

import numpy as np
import pytest
import torch
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.training.data import CROPS, ZOOM, Photos, Views, batch_indices, checked_photos, step_seed


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


def image(width: int, height: int) -> Image.Image:
    """Red says how far right a pixel is, green how far down."""
    ramps = [Image.linear_gradient("L").rotate(90), Image.linear_gradient("L"), Image.new("L", (256, 256))]
    return Image.merge("RGB", ramps).resize((width, height))


def one_view(views: Views, photo: Image.Image, seed: list[int]) -> torch.Tensor:
    return views.cut(photo, views.window(photo.size, seed))


def all_views(views: Views, photo: Image.Image, seed: list[int]) -> torch.Tensor:
    return torch.stack([views.cut(photo, window) for window in views.windows(photo.size, seed)])


def test_the_center_square_is_kept_and_scaled_to_minus_one_to_one():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("white", (100, 0, 200, 100))
    [square] = all_views(Views(64), wide, [0])
    assert square.shape == (3, 64, 64)
    assert square[:, 8:-8, 8:-8].eq(1).all()


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (100, 100), (64, 64), (40, 50)])
def test_random_squares_keep_most_of_the_shorter_side_and_reach_both_ends_of_the_longer(size):
    views = torch.stack([one_view(Views(64, crop=True), image(*size), [seed]) for seed in range(60)])
    low, high = views[:, :2].amin((2, 3)), views[:, :2].amax((2, 3))  # n 2: where each view begins and ends
    for axis in (0, 1):
        seen = (high - low)[:, axis].mul(size[axis] / min(size))
        assert seen.min() > 2 / ZOOM - 0.15
        assert seen.max() < 2.05
        if size[axis] > min(size):
            assert low[:, axis].min() < -0.8
            assert high[:, axis].max() > 0.8


@pytest.mark.parametrize(
    ("views", "copies", "mirrored"),
    [
        (Views(32), 1, 0),
        (Views(32, flip=True), 2, 1),
        (Views(32, crop=True), CROPS, 0),
        (Views(32, True, True), CROPS, 4),
    ],
)
def test_the_cache_gets_as_many_views_as_the_augmentation_needs_and_mirrors_half(views, copies, mirrored):
    found = all_views(views, image(100, 60), [0, 3])
    assert len(found) == views.copies == copies
    assert sum(view[0, 0, 0].item() > view[0, 0, -1].item() for view in found) == mirrored
    assert len({tuple(view.flatten().tolist()) for view in found}) == copies
    assert torch.equal(found, all_views(views, image(100, 60), [0, 3]))


def test_fresh_views_are_mirrored_half_of_the_time_and_repeat_with_their_seed():
    views = Views(32, flip=True)
    found = [one_view(views, image(60, 60), [seed]) for seed in range(100)]
    assert 30 < sum(view[0, 0, 0].item() > view[0, 0, -1].item() for view in found) < 70
    assert torch.equal(found[7], one_view(views, image(60, 60), [7]))


def test_photos_by_position_follow_the_same_order(photos):
    paths = sorted(photos.iterdir())
    sequence = Photos(paths, Views(32), seed=5)
    expected = [one_view(Views(32), read_image(paths[i]), [0]) for i in batch_indices(5, 0, len(paths), 7)]
    assert all(torch.equal(sequence[position].pixels, view) for position, view in enumerate(expected))


SQUARE = (60, 10, 100)


@pytest.mark.parametrize("square", [None, SQUARE])
@pytest.mark.parametrize("views", [Views(32), Views(32, flip=True), Views(32, crop=True), Views(32, True, True)])
def test_sizes_say_where_in_the_photo_a_view_was_cut(tmp_path, views, square):
    """The pixels themselves say where they come from: red is x, green is y."""
    x, y = np.meshgrid(np.arange(200, dtype=np.uint8), np.arange(120, dtype=np.uint8))
    Image.fromarray(np.stack([x, y, 0 * x], axis=-1)).save(tmp_path / "a.png")
    photos = Photos([tmp_path / "a.png"], views, 7, {} if square is None else {tmp_path / "a.png": square})
    cached = photos.all_views(0)
    seen = [(photo.pixels, photo.sizes) for photo in (photos[position] for position in range(6))]
    for pixels, sizes in [*seen, *zip(cached.pixels, cached.sizes, strict=True)]:
        height, width, top, left, *target = sizes.tolist()
        assert (height, width, target) == (120, 200, [32, 32])
        assert (start(pixels[0].mean(0), width), start(pixels[1].mean(1), None)) == pytest.approx((left, top), abs=1)


def start(ramp: torch.Tensor, mirrors_at: float | None) -> float:
    """Where a view begins, in pixels of the resized photo; from the right if it is mirrored."""
    places = (ramp.double().numpy() + 1) * 127.5 + 0.5
    step, first = np.polyfit(np.arange(len(places))[6:-6] + 0.5, places[6:-6], 1)
    return float((first if step > 0 else mirrors_at - first) / abs(step))


def test_all_photos_that_cannot_be_read_are_named(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"(?s)2 of 2 photos.*a\.png.*b\.png"):
        checked_photos(sorted(tmp_path.iterdir()))
