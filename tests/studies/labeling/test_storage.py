"""Ratings in SQLite: each once, none lost, whatever happens to the process, the file or the disk."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.labeling import storage
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.storage import RATINGS, DiskFullError, RatingStore
from support.label_plans import full_disk

NOBODY = 65534

WRITER = """
import sys, time
from pathlib import Path
from finetune_monitor.studies.labeling.storage import RatingStore
from finetune_monitor.studies.labeling.ratings import Rating
store = RatingStore(Path(sys.argv[1]))
for number in range(10_000):
    key = f"{sys.argv[2]}-{number:06d}"
    store.add(key, Rating(key, "anna", "aesthetic", 1 + number % 5, "", 0))
    print(key, flush=True)
    time.sleep(0.005)
"""


@pytest.fixture
def store(tmp_path):
    made = RatingStore(tmp_path / RATINGS)
    made.create()
    return made


def rating(image_id="a", label=3, labeler="anna", metric="aesthetic", second=5):
    return Rating(image_id, labeler, metric, label, f"2026-01-02T03:04:{second:02d}.678+00:00", 1200)


def test_ratings_come_back_as_they_arrived(store):
    given = [rating("b", 5), rating("a", 1, "Zoë; 'x', \"y\""), rating("b", 2)]
    for number, each in enumerate(given):
        store.add(f"key-{number}", each)
    assert store.all() == given
    assert RatingStore(store.file).all() == given


def test_a_rating_that_is_sent_twice_is_stored_once(store):
    for _ in range(2):
        store.add("key", rating())
    store.add("other key", rating())
    assert len(store.all()) == 2


def test_the_latest_answer_of_each_image_stands(store):
    given = [rating("a", 1), rating("b", 2), rating("a", 4), rating("a", 5, "ben"), rating("a", 3, metric="other")]
    for number, each in enumerate(given):
        store.add(f"key-{number}", each)
    assert store.latest("anna") == {("aesthetic", "a"): 4, ("aesthetic", "b"): 2, ("other", "a"): 3}
    assert store.latest("nobody") == {}


def test_an_answer_that_arrives_late_replaces_no_later_one(store):
    given = [rating(label=1, second=3), rating(label=2, second=9), rating(label=3, second=4), rating("b", 4, second=4)]
    for number, each in enumerate(given):
        store.add(f"key-{number}", each)
    assert store.latest("anna") == {("aesthetic", "a"): 2, ("aesthetic", "b"): 4}
    assert store.all() == given


def test_labelers_stand_in_the_order_of_their_first_rating(store):
    for number, name in enumerate(["zoe", "anna", "zoe", "Zoe"]):
        store.add(f"key-{number}", rating(labeler=name))
    assert store.labelers() == ["zoe", "anna", "Zoe"]


def test_an_empty_file_has_no_ratings_yet_and_is_made_good(tmp_path):
    store = RatingStore(tmp_path / RATINGS)
    store.file.touch()
    assert (store.all(), store.latest("anna"), store.labelers()) == ([], {}, [])
    store.create()
    store.add("key", rating())
    assert store.all() == [rating()]


def test_before_there_is_a_file_there_are_no_ratings(tmp_path):
    assert RatingStore(tmp_path / RATINGS).all() == []
    assert list(tmp_path.iterdir()) == []


def test_creating_again_keeps_what_is_there(store):
    store.add("key", rating())
    store.create()
    assert len(store.all()) == 1


@pytest.mark.parametrize("label", [0, 6])
def test_the_table_itself_refuses_what_is_no_label(store, label):
    with pytest.raises(sqlite3.IntegrityError):
        store.add("key", rating(label=label))
    assert store.all() == []


def test_many_threads_write_at_once(store):
    def write(thread):
        for number in range(20):
            store.add(f"{thread}-{number}", rating(f"{thread}-{number}"))

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.image_id for each in store.all()}) == 160


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [1, 7, 15])
def test_two_killed_writers_lose_no_acknowledged_rating(store, acknowledged):
    command = [sys.executable, "-c", WRITER, str(store.file)]
    children = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("one", "two")]
    seen = [[child.stdout.readline() for _ in range(acknowledged)] for child in children]
    for child in children:
        child.send_signal(signal.SIGKILL)
    seen = [line.strip() for child, lines in zip(children, seen, strict=True) for line in (*lines, *child.stdout)]
    for child in children:
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    store.create()
    found = [each.image_id for each in store.all()]
    assert set(found) >= set(filter(None, seen))
    assert len(found) == len(set(found)) <= len(seen) + 2


def test_every_rating_is_flushed_to_the_disk(store):
    """A rating is committed when the journal is removed; only EXTRA (3) flushes the folder after that.

    With FULL (2) a power cut may bring the journal back, which would undo a rating whose labeler has read "Saved".
    """
    with store.connect() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / RATINGS).write_bytes(content)
    store = RatingStore(tmp_path / RATINGS)
    for action in (store.create, store.all, lambda: store.latest("anna"), lambda: store.add("key", rating())):
        with pytest.raises(UserError, match=r"ratings\.sqlite: .*(damaged|check that its folder)"):
            action()


def test_damage_within_the_table_is_found_at_the_start(store):
    for number in range(200):
        store.add(f"key-{number}", rating(f"{number}" * 30))
    with store.file.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(UserError, match=r"ratings\.sqlite: damaged"):
        store.create()


def test_a_newer_format_is_refused(store):
    with closing(sqlite3.connect(store.file)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(UserError, match="found format 2, expected 1"):
        store.create()


def test_a_full_disk_keeps_what_was_saved(store, monkeypatch):
    store.add("key", rating())
    with full_disk(monkeypatch), pytest.raises(DiskFullError, match="the disk is full"):
        for number in range(1000):
            store.add(f"more-{number}", rating("x" * 1000))
    assert store.all()[0] == rating()


def test_a_folder_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        RatingStore(folder / RATINGS).create()
        (folder / RATINGS).chmod(0o444)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            for action in (RatingStore(folder / RATINGS).create, RatingStore(folder / "new.sqlite").create):
                with pytest.raises(UserError, match="check that its folder is writable"):
                    action()
            assert RatingStore(folder / RATINGS).all() == []
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_writer_that_holds_the_file_for_too_long_is_an_error(store, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    with sqlite3.connect(store.file) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="database is locked"):
            store.add("key", rating())
        other.rollback()
    other.close()
    store.add("key", rating())
