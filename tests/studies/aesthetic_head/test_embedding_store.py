"""Embeddings come back as they went in, in any order, whatever is killed, damaged or written at the same time."""

import hashlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune_monitor.base import files
from finetune_monitor.base.errors import UserError
from finetune_monitor.models.clip import ClipSource, resolve_clip
from finetune_monitor.studies.aesthetic_head import embedding_store as module
from finetune_monitor.studies.aesthetic_head.embedding_store import EmbeddingStore, FileState, Seen
from support import needs, preloaded
from support.mortal import die_at, in_a_child
from support.places import DEMO, ROOT, SHARED

CLIP = resolve_clip(str(DEMO / "clip"), None)
TOUCHES_THE_DISK = [
    (files, "fsync"),
    (Path, "mkdir"),
    (Path, "write_bytes"),
    (Path, "replace"),
    (module, "_database"),
]
STATE = FileState(7, 1_700_000_000_123_456_789)
PUBLIC = SHARED / "aesthetic"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 4)


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(number: int) -> np.ndarray:
    values = np.random.default_rng(number).normal(size=96).astype(np.float32)
    return values / np.linalg.norm(values)


def fill(root: Path, numbers: range) -> EmbeddingStore:
    """A store with these rows, each that of a file of its own."""
    store = EmbeddingStore(root, CLIP)
    with store.writing() as writer:
        for number in numbers:
            add(writer, number)
    return store


def add(writer, number: int) -> None:
    writer.add([digest(number)], [row(number)])
    writer.note(Path(f"/photos/{number}.jpg"), STATE, Seen(digest(number)))


def check(store: EmbeddingStore, numbers: list[int]) -> None:
    expected = np.array([row(number) for number in numbers], dtype=np.float16).reshape(-1, 96)
    assert np.array_equal(store.rows([digest(number) for number in numbers]), expected)


def shards(store: EmbeddingStore) -> list[str]:
    return sorted(path.name for path in store.folder.glob("shard-*"))


def test_rows_in_the_order_asked_from_more_shards_than_one(tmp_path):
    for store in (fill(tmp_path, range(11)), EmbeddingStore(tmp_path, CLIP)):
        check(store, [9, 0, 3, 10, 4, 3, 8, 1])
        check(store, [])
        assert len(store) == 11
        assert store.known() == {digest(number) for number in range(11)}
        assert digest(10) in store
        assert digest(11) not in store
        with pytest.raises(KeyError, match=digest(11)):
            store.rows([digest(0), digest(11)])
    assert shards(store) == [f"shard-0000{number}.safetensors" for number in range(3)]


def test_appending_fills_the_newest_shard_before_it_begins_another(tmp_path):
    for end in range(1, 11):
        store = fill(tmp_path, range(end - 1, end))
        assert len(shards(store)) == -(-end // 4)
        check(store, list(range(end))[::-1])
    assert json.loads((store.folder / "store.json").read_text()) == {
        "version": 1,
        "clip": str(DEMO / "clip"),
        "sha256": files.sha256(CLIP.file),
        "width": 96,
        "dtype": "float16",
    }


def test_saved_once_a_minute(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    store = EmbeddingStore(tmp_path, CLIP)
    with store.writing() as writer:
        for number, time, saved in [(0, 1001.0, 0), (1, 1059.9, 0), (2, 1060.0, 3), (3, 1061.0, 4), (4, 1120.1, 5)]:
            clock[0] = time
            add(writer, number)
            writer.save_if_due()
            assert len(EmbeddingStore(tmp_path, CLIP)) == saved  # a full shard is written at once


def test_saved_after_an_exception(tmp_path):
    store = EmbeddingStore(tmp_path, CLIP)
    with pytest.raises(KeyboardInterrupt), store.writing() as writer:
        add(writer, 0)
        raise KeyboardInterrupt
    check(EmbeddingStore(tmp_path, CLIP), [0])


def test_a_file_is_known_while_its_size_and_time_are_the_same(tmp_path):
    store = fill(tmp_path, range(2))
    odd = Path(os.fsdecode(b"/photos/caf\xe9.jpg"))
    with store.writing() as writer:
        writer.note(odd, STATE, Seen(problem=f"{odd}: damaged"))
    one = Path("/photos/1.jpg")
    assert store.seen({one: STATE, odd: STATE, Path("/photos/2.jpg"): STATE}) == {
        one: Seen(digest(1)),
        odd: Seen(problem="/photos/caf\\udce9.jpg: damaged"),
    }
    assert store.seen({Path("/photos/../photos/1.jpg"): STATE})
    assert store.seen({one: STATE._replace(size=8)}) == {}
    assert store.seen({one: STATE._replace(mtime_ns=STATE.mtime_ns + 1)}) == {}


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_shard_is_set_aside_and_its_rows_are_missing(tmp_path, caplog, kept):
    store = fill(tmp_path, range(11))
    shard = store.folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"shard-00001.*run the same command again"):
        store.rows([digest(5)])
    store = EmbeddingStore(tmp_path, CLIP)
    paths = {Path(f"/photos/{number}.jpg"): STATE for number in range(11)}
    assert len(store.seen(paths)) == 7
    with caplog.at_level(logging.WARNING), store.writing() as writer:
        for number in range(4, 8):
            add(writer, number)
    assert "shard-00001.safetensors: damaged, moved to shard-00001.safetensors.damaged" in caplog.text
    assert shards(store)[1] == "shard-00001.safetensors.damaged"
    check(EmbeddingStore(tmp_path, CLIP), list(range(11)))


def test_the_newest_shard_damaged(tmp_path):
    store = fill(tmp_path, range(6))
    (store.folder / "shard-00001.safetensors").write_bytes(b"\0" * 200)
    store = fill(tmp_path, range(4, 6))
    check(store, list(range(6)))
    assert len(shards(store)) == 3


@pytest.mark.parametrize("content", [b"nonsense" * 200, b""])
def test_a_damaged_list_of_files_is_set_aside(tmp_path, content):
    store = fill(tmp_path, range(2))
    (store.folder / "files.sqlite").write_bytes(content)
    paths = {Path(f"/photos/{number}.jpg"): STATE for number in range(2)}
    assert store.seen(paths) == {}
    store = fill(tmp_path, range(2, 3))
    assert (store.folder / "files.sqlite.damaged").exists() == bool(content)
    check(store, [0, 1, 2])
    assert list(store.seen({Path("/photos/2.jpg"): STATE})) == [Path("/photos/2.jpg")]


@pytest.mark.parametrize(("content", "message"), [('{"version": 2}', "found version 2, expected 1"), ("{", "damaged")])
def test_a_store_that_is_not_ours(tmp_path, content, message):
    (fill(tmp_path, range(1)).folder / "store.json").write_text(content)
    with pytest.raises(UserError, match=message):
        EmbeddingStore(tmp_path, CLIP)


def test_litter_is_cleared(tmp_path):
    store = fill(tmp_path, range(1))
    (store.folder / ".staging-shard-00001.safetensors").write_bytes(b"half")
    store = fill(tmp_path, range(1, 2))
    assert not list(store.folder.glob(".staging-*"))
    check(store, [0, 1])


@pytest.mark.slow
def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    code = (
        "import sys; from pathlib import Path; from finetune_monitor.models.clip import resolve_clip\n"
        "from finetune_monitor.studies.aesthetic_head.embedding_store import EmbeddingStore\n"
        "with EmbeddingStore(Path(sys.argv[1]), resolve_clip(sys.argv[2], None)).writing(): pass"
    )
    store = EmbeddingStore(tmp_path, CLIP)
    with store.writing() as writer:
        add(writer, 0)
        writer.save()
        check(EmbeddingStore(tmp_path, CLIP), [0])
        command = [preloaded.python(), "-c", code, str(tmp_path), str(DEMO / "clip")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "UserError" in done.stderr
    assert "another process is embedding into this folder" in done.stderr
    check(fill(tmp_path, range(1, 2)), [0, 1])


@pytest.mark.parametrize("broken", ["write_atomic", "_database"])
def test_a_full_disk_is_said(tmp_path, monkeypatch, broken):
    def full(*_):
        raise OSError(28, "No space left on device") if broken == "write_atomic" else sqlite3.OperationalError("full")

    store = fill(tmp_path, range(2))
    with (
        pytest.raises(UserError, match=rf"{store.folder}.*(No space left|full).*free some space"),
        store.writing() as writer,
    ):
        monkeypatch.setattr(module, broken, full)
        add(writer, 2)
    monkeypatch.undo()
    check(EmbeddingStore(tmp_path, CLIP), [0, 1])


def test_each_clip_has_its_own_folder_wherever_it_lies(tmp_path):
    home = tmp_path / "one"
    shutil.copytree(DEMO / "clip", home)
    store = fill(tmp_path, range(1))
    assert store.folder.name.startswith("clip-")
    same = home.rename(tmp_path / "renamed")
    assert EmbeddingStore(tmp_path, resolve_clip(str(same), None)).folder == store.folder
    config = same / "open_clip_config.json"
    config.write_text(config.read_text().replace("bicubic", "bilinear"))
    other = EmbeddingStore(tmp_path, resolve_clip(str(same), None))
    assert other.folder.name.startswith("renamed-")
    assert digest(0) not in other


def test_a_named_clip_is_told_by_weights_model_and_preprocessing(tmp_path):
    def named(weights=b"w", folder="a", **settings) -> str:
        file = tmp_path / folder / "weights.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(weights)
        arguments = {"model_name": "ViT-L-14-quickgelu", "pretrained": str(file), "image_mean": (0.5,) * 3, **settings}
        return EmbeddingStore(tmp_path, ClipSource("ViT-L-14-quickgelu/openai", "openai", file, arguments)).folder.name

    assert named().startswith("ViT-L-14-quickgelu-openai-")
    assert named() == named(folder="b")
    changed = [named(weights=b"v"), named(image_mean=(0.4,) * 3), named(model_name="ViT-L-14")]
    assert len({named(), *changed}) == 4


def die_while_writing(root: Path, point: int) -> bool:
    """Whether a process that adds rows 3 to 8, saving twice, lived to the end."""

    def write() -> None:
        die_at(point, TOUCHES_THE_DISK)
        with EmbeddingStore(root, CLIP).writing() as writer:
            for number in range(3, 9):
                add(writer, number)
                if number == 5:
                    writer.save()

    return in_a_child(write)


@pytest.mark.slow
def test_killed_at_every_point_of_writing(tmp_path):
    fill(tmp_path / "whole", range(3))
    paths = {Path(f"/photos/{number}.jpg"): STATE for number in range(9)}
    point, lived, counts = 0, False, set()
    while not lived:
        point += 1
        root = tmp_path / str(point)
        shutil.copytree(tmp_path / "whole", root)
        lived = die_while_writing(root, point)
        store = EmbeddingStore(root, CLIP)
        count = len(store)
        check(store, list(range(count)))
        assert len(store.seen(paths)) <= count
        counts.add(count)
        check(fill(root, range(count, 9)), list(range(9)))
        assert len(store.seen(paths)) >= 3
    assert counts >= {3, 4, 6, 8, 9}
    assert point > 15


@needs.shared("aesthetic")
def test_float16_moves_a_score_by_less_than_people_could_tell():
    files = sorted(PUBLIC.glob("laion/embeddings/vit_l_14_embeddings_rating*.npy"))
    plain = torch.from_numpy(np.concatenate([np.load(file).reshape(-1, 768) for file in files])).float()
    plain = torch.nn.functional.normalize(plain)
    state = torch.load(PUBLIC / "sac+logos+ava1-l14-linearMSE.pth", map_location="cpu", weights_only=True)

    def score(rows: torch.Tensor) -> torch.Tensor:
        for name in sorted(key for key in state if key.endswith("weight")):
            rows = rows @ state[name].T + state[name.replace("weight", "bias")]
        return rows[:, 0]

    found = score(plain)
    moved = (score(plain.half().float()) - found).abs()
    assert len(found) == 10
    assert found.max() - found.min() > 1
    assert 0 < moved.max() < 3e-4
