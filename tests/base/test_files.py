"""Staging: a target is old or new, never half."""

import pytest

from finetune_monitor.base import files


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
