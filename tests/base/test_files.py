"""Staging: a target is old or new, never half."""

import os

import pytest

from finetune_monitor.base import files
from finetune_monitor.base.errors import UserError


def test_a_folder_appears_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "best"
    with files.staged_folder(target) as staged:
        (staged / "a").write_text("new")
        assert not target.exists()
    assert (target / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_block_that_fails_leaves_the_old_folder_and_no_litter(tmp_path):
    target = tmp_path / "best"
    with files.staged_folder(target) as staged:
        (staged / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"), files.staged_folder(target) as staged:
        (staged / "a").write_text("half")
        raise OSError("disk full")
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_everything_is_flushed_before_the_rename(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(files, "fsync", lambda path: calls.append(path.name))
    with files.staged_folder(tmp_path / "best") as staged:
        (staged / "inner").mkdir()
        (staged / "inner/a").write_text("x")
    assert set(calls[:-2]) == {"inner", "a"}
    assert calls[-2].startswith(files.STAGING + "best")
    assert calls[-1] == tmp_path.name


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "run.json"
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_named_file_that_can_be_written_is(tmp_path):
    for path in (tmp_path / "new/file", tmp_path / "new/file"):
        files.check_named(path)
        files.write_named(path, b"content")
        assert path.read_bytes() == b"content"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is a folder, expected a file"),
        ("pipe", "is not a regular file"),
        ("file/below", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_named_file_that_cannot_be_written_is_refused(tmp_path, name, why):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=why):
        files.check_named(tmp_path / name)
    if name != "pipe":  # which would be replaced
        with pytest.raises(UserError, match="cannot write it"):
            files.write_named(tmp_path / name, b"content")
