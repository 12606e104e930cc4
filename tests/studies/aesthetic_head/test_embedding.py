"""Every image is embedded once, as CLIP itself would, however the work is interrupted and the files are moved."""

import logging
import multiprocessing
import os
import pkgutil
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import read_images
from finetune_monitor.models.clip import ClipEncoder, resolve_clip
from finetune_monitor.studies.aesthetic_head import embedding as module
from finetune_monitor.studies.aesthetic_head.embedding import Embedded, embed_images
from finetune_monitor.studies.aesthetic_head.embedding_store import EmbeddingStore
from support import preloaded
from support.places import DEMO
from support.trainings import started

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

CLIP = resolve_clip(str(DEMO / "clip"), None)
PHOTO = Image.fromarray(astronaut())


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "embeddings"


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Sizes of the batches that the network sees."""
    sizes: list[int] = []
    plain = ClipEncoder.encode

    def counting(self, pixels):
        sizes.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(ClipEncoder, "encode", counting)
    return sizes


def save_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        left, top = 5 * number % 250, 3 * number % 220
        PHOTO.crop((left, top, left + 90 + number % 7, top + 80 + number % 11)).save(path)
    return paths


def check(store: EmbeddingStore, embedded: Embedded, paths: list[Path]) -> None:
    """Every embedding is CLIP's, to the rounding of float16."""
    assert embedded.digests == [sha256(path) for path in paths]
    expected = ClipEncoder(CLIP).embed(read_images(paths)).numpy()
    found = store.rows(embedded.digests).astype(np.float32)
    assert (np.abs(found - expected) <= 1e-6 + np.abs(expected) * 2**-11).all()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_embeddings_are_those_of_the_encoder(tmp_path, root, encoded, workers):
    paths = save_images(tmp_path / "photos", 70)
    store, embedded = embed_images(paths, CLIP, root, "cpu", workers)
    assert encoded == [16, 16, 16, 16, 6]
    assert embedded.problems == {}
    check(store, embedded, paths)
    shuffled = [paths[4], paths[66], paths[4], paths[0]]
    store, embedded = embed_images(shuffled, CLIP, root)
    check(store, embedded, shuffled)


def test_images_are_read_as_everywhere(tmp_path, root):
    turned = PHOTO.getexif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    PHOTO.crop((0, 0, 300, 200)).save(tmp_path / "turned.jpg", exif=turned)
    transparent = PHOTO.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    transparent.save(tmp_path / "transparent.png")
    PHOTO.convert("L").save(tmp_path / "gray.webp")
    PHOTO.convert("CMYK").save(tmp_path / "cmyk.tif")
    paths = sorted(path for path in tmp_path.iterdir() if path.is_file())
    check(*embed_images(paths, CLIP, root), paths)


def test_a_second_call_neither_loads_clip_nor_reads_an_image(tmp_path, root, monkeypatch):
    paths = save_images(tmp_path / "photos", 20)
    (tmp_path / "text.jpg").write_text("not a readable image")
    paths.append(tmp_path / "text.jpg")
    first = embed_images(paths, CLIP, root)[1]
    for name in ("ClipEncoder", "read_image", "sha256"):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: pytest.fail(f"{name} was used"))
    store, second = embed_images(paths, CLIP, root)
    assert second == first
    assert list(second.problems) == paths[-1:]
    assert len(store) == 20


def test_a_known_content_under_another_name_is_not_encoded(tmp_path, root, encoded, monkeypatch):
    paths = save_images(tmp_path / "photos", 18)
    copies = [shutil.copy(path, tmp_path / path.name) for path in paths[:3]]
    store, embedded = embed_images([*copies, *paths], CLIP, root)
    assert sum(encoded) == len(store) == 18
    assert embedded.digests[:3] == embedded.digests[3:6]
    moved = (tmp_path / "photos").rename(tmp_path / "moved")
    renamed = [moved / path.name for path in paths]
    os.utime(renamed[1])
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail(f"{path} was decoded"))
    assert embed_images(renamed, CLIP, root)[1].digests == embedded.digests[3:]
    assert sum(encoded) == 18


def test_a_changed_file_is_embedded_again(tmp_path, root, encoded):
    paths = save_images(tmp_path / "photos", 5)
    embed_images(paths, CLIP, root)
    PHOTO.resize((70, 70)).save(paths[2])
    store, embedded = embed_images(paths, CLIP, root)
    assert encoded == [5, 1]
    check(store, embedded, paths)


@pytest.fixture
def unusable(tmp_path) -> dict[Path, str]:
    """Files and paths that are no images, and a word of what is to be said of each."""
    PHOTO.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a text that somebody named .jpg")
    (tmp_path / "folder.jpg").mkdir()
    Image.new("L", (12_000, 12_000)).save(tmp_path / "bomb.png")
    Image.new("L", (30_000, 1)).save(tmp_path / "line.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    said = {
        "cut.jpg": "damaged",
        "empty.jpg": "not a readable image",
        "text.jpg": "not a readable image",
        "folder.jpg": "not a file",
        "bomb.png": "megapixels",
        "line.png": "found 30000 x 1 pixels",
        "pipe.jpg": "not a file",
        "missing.jpg": "No such file",
    }
    return {tmp_path / name: word for name, word in said.items()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_used_is_said_and_the_rest_is_embedded(tmp_path, root, unusable, encoded, workers):
    paths = save_images(tmp_path / "photos", 34)
    mixed = [*unusable, *paths]
    for _ in range(2):
        store, embedded = embed_images(mixed, CLIP, root, "cpu", workers)
        assert embedded.problems.keys() == unusable.keys()
        assert embedded.digests[: len(unusable)] == [None] * len(unusable)
        for path, word in unusable.items():
            assert str(path) in embedded.problems[path]
            assert word in embedded.problems[path]
    assert sum(encoded) == len(store) == 34
    shutil.copy(tmp_path / "whole.jpg", tmp_path / "cut.jpg")
    assert tmp_path / "cut.jpg" not in embed_images(mixed, CLIP, root)[1].problems


@pytest.mark.slow
def test_only_unusable_files_or_none(root, unusable):
    store, embedded = embed_images(list(unusable), CLIP, root)
    assert embedded.digests == [None] * len(unusable)
    assert len(store) == 0
    assert embed_images([], CLIP, root)[1] == Embedded([], {})


@pytest.mark.parametrize(
    "reader", ["finetune_monitor.studies.aesthetic_head.embedding.sha256", "finetune_monitor.base.images.open_regular"]
)
def test_a_failure_that_may_pass_is_not_remembered(tmp_path, root, monkeypatch, reader):
    paths = save_images(tmp_path / "photos", 3)
    plain = pkgutil.resolve_name(reader)

    def unplugged(path):
        if path == paths[1]:
            raise OSError(5, "Input/output error")
        return plain(path)

    monkeypatch.setattr(reader, unplugged)
    embedded = embed_images(paths, CLIP, root)[1]
    assert "Input/output error" in embedded.problems[paths[1]]
    monkeypatch.undo()
    check(*embed_images(paths, CLIP, root), paths)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(tmp_path, root, monkeypatch):
    paths = save_images(tmp_path / "photos", 3)
    plain = module.read_image

    def slow(path):
        if path == paths[1]:
            PHOTO.save(path)
        return plain(path)

    monkeypatch.setattr(module, "read_image", slow)
    embedded = embed_images(paths, CLIP, root)[1]
    assert "changed while it was being read" in embedded.problems[paths[1]]
    monkeypatch.undo()
    check(*embed_images(paths, CLIP, root), paths)


@pytest.mark.slow
def test_batches_halve_when_memory_runs_out(tmp_path, root, monkeypatch, caplog):
    paths = save_images(tmp_path / "photos", 40)
    plain, sizes = ClipEncoder.encode, []

    def small(self, pixels):
        sizes.append(len(pixels))
        if len(pixels) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(self, pixels)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(ClipEncoder, "encode", small)
        store, embedded = embed_images(paths, CLIP, root)
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[3:]) == {4}
    assert "out of memory with 16 images" in caplog.text
    check(store, embedded, paths)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_state_is_left_alone(tmp_path, root, workers):
    paths = save_images(tmp_path / "photos", 40)
    torch.manual_seed(3)
    np.random.seed(3)
    before, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    embed_images(paths, CLIP, root, "cpu", workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], other)


def test_two_clips_share_a_root(tmp_path, root, encoded):
    paths = save_images(tmp_path / "photos", 4)
    folder = shutil.copytree(DEMO / "clip", tmp_path / "other")
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace('"shortest"', '"squash"'))
    other = resolve_clip(str(folder), None)
    for _ in range(2):
        check(*embed_images(paths, CLIP, root), paths)
        store, embedded = embed_images(paths, other, root)
    expected = ClipEncoder(other).embed(read_images(paths)).numpy()
    assert np.abs(store.rows(embedded.digests) - expected).max() < 1e-3
    assert len(list(root.iterdir())) == 2
    assert encoded[:2] == [4, 4]


def test_a_damaged_shard_is_made_again(tmp_path, root, encoded):
    paths = save_images(tmp_path / "photos", 6)
    store, embedded = embed_images(paths, CLIP, root)
    shard = store.folder / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    store, again = embed_images(paths, CLIP, root)
    assert again == embedded
    assert encoded == [6, 6]
    check(store, again, paths)


def test_two_at_once_are_refused_unless_nothing_remains(tmp_path, root):
    paths = save_images(tmp_path / "photos", 6)
    store, _ = embed_images(paths[:4], CLIP, root)
    with store.writing():
        check(*embed_images(paths[:4], CLIP, root), paths[:4])
        with pytest.raises(UserError, match="another process is embedding"):
            embed_images(paths, CLIP, root)


SLOW = """
import sys, time
from pathlib import Path
from finetune_monitor.studies.aesthetic_head import embedding, embedding_store
from finetune_monitor.models.clip import ClipEncoder, resolve_clip

clip, folder, root = sys.argv[1:]
plain, sizes = ClipEncoder.encode, []

def slow(self, pixels):
    sizes.append(len(pixels))
    print(len(pixels), flush=True)
    time.sleep(0.3 if len(sizes) < 6 else 60)
    return plain(self, pixels)

ClipEncoder.encode, embedding_store.SAVE_SECONDS = slow, 0.5
embedding.embed_images(sorted(Path(folder).iterdir()), resolve_clip(clip, None), Path(root), "cpu", 2)
"""


def interrupt(photos: Path, root: Path, how: signal.Signals, said: Path) -> int:
    """Exit status of a process that embeds slowly and is ended in the sixth batch of ten."""
    command = [preloaded.python(), "-c", SLOW, str(DEMO / "clip"), str(photos), str(root)]
    with started(said, command) as embedding:
        embedding.until(lambda: embedding.said.count("16\n") == 6)
        time.sleep(0.1)
        if how == signal.SIGINT:
            os.killpg(embedding.process.pid, how)  # as a terminal does, to the workers too
        else:
            embedding.send(how)
        return embedding.ends()


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_what_was_embedded_is_kept(tmp_path, root, monkeypatch):
    paths, plain = save_images(tmp_path / "photos", 160), ClipEncoder.encode

    def encode(encoder, pixels):
        for process in multiprocessing.active_children():
            process.kill()
        return plain(encoder, pixels)

    monkeypatch.setattr(ClipEncoder, "encode", encode)
    with pytest.raises(UserError, match=r"^--workers: a process that reads images has ended \(SIGKILL\), .* again$"):
        embed_images(paths, CLIP, root, "cpu", 2)
    kept = len(EmbeddingStore(root, CLIP))
    assert 0 < kept < 160
    monkeypatch.undo()
    store, embedded = embed_images(paths, CLIP, root, "cpu", 0)
    check(store, embedded, paths)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, root, encoded, how):
    paths = save_images(tmp_path / "photos", 160)
    assert interrupt(tmp_path / "photos", root, how, tmp_path / "said") == -how
    saved = len(EmbeddingStore(root, CLIP))
    assert saved == 80 if how == signal.SIGINT else saved in range(16, 81, 16)
    if how == signal.SIGINT:
        said = (tmp_path / "said").read_text()
        assert said.count("Traceback") == said.count("KeyboardInterrupt") == 1
    store, embedded = embed_images(paths, CLIP, root)
    assert sum(encoded) == 160 - saved
    check(store, embedded, paths)
