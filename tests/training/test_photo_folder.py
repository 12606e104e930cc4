"""Folders of photos as people have them: captions, metadata.jsonl, kohya's folders; every problem in one message."""

import json
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.training.photo_folder import Photo, list_photos, passed_over_in, read_photos


def filled(folder: Path, **files: str | None) -> Path:
    """A folder with files; None is a photo, and `__` in a name is a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        if text is None:
            Image.new("RGB", (8, 8)).save(path)
        else:
            path.write_text(text)
    return folder


def found(folder: Path) -> list[tuple[str, str | None, int]]:
    return [(photo.path.name, photo.caption, photo.repeats) for photo in read_photos(folder)]


def test_a_plain_folder_has_no_captions(tmp_path):
    folder = filled(tmp_path, b__png=None, a__png=None, notes__txt="shot in May")
    assert found(folder) == [("a.png", None, 1), ("b.png", None, 1)]
    assert list_photos(folder) == [folder / "a.png", folder / "b.png"]
    assert "notes.txt" in passed_over_in(folder)[0]


def test_captions_lie_beside_photos_as_kohya_has_them(tmp_path):
    folder = filled(tmp_path, a__png=None, b__png=None, c__png=None, a__txt="sks person\n at sea \n", c__TXT="  ")
    assert found(folder) == [("a.png", "sks person at sea", 1), ("b.png", None, 1), ("c.png", None, 1)]
    assert passed_over_in(folder) == []


@pytest.mark.parametrize("key", ["text", "caption", "prompt"])
def test_captions_are_read_from_the_metadata_of_an_image_folder(tmp_path, key):
    line = json.dumps({"file_name": "a.png", key: "sks person, 写真", "width": 8})
    folder = filled(tmp_path, a__png=None, b__png=None, metadata__jsonl=line + "\n\n")
    assert found(folder) == [("a.png", "sks person, 写真", 1), ("b.png", None, 1)]
    assert passed_over_in(folder) == []


def test_kohyas_folders_are_read_as_repeats_and_prompt(tmp_path):
    filled(tmp_path / "10_sks person", a__png=None, b__png=None, b__txt="sks person at sea")
    filled(tmp_path / "2_sks person drawn", a__png=None)
    filled(tmp_path / ".cache", a__png=None)
    assert found(tmp_path) == [
        ("a.png", "sks person", 10),
        ("b.png", "sks person at sea", 10),
        ("a.png", "sks person drawn", 2),
    ]
    assert len(list_photos(tmp_path)) == 3


def test_folders_beside_photos_are_passed_over_as_before(tmp_path):
    filled(tmp_path, a__png=None)
    filled(tmp_path / "10_sks person", b__png=None)
    assert read_photos(tmp_path) == [Photo(tmp_path / "a.png")]


BAD = {
    "a caption without a photo": (
        {"a__png": None, "a__txt": "x", "b__txt": "y"},
        r"b\.txt: a caption without a photo; add the photo b\.\*",
    ),
    "no JSON": ({"a__png": None, "metadata__jsonl": "{"}, r"metadata\.jsonl: line 1: found no JSON"),
    "no object": ({"a__png": None, "metadata__jsonl": "[1]"}, r"line 1: found a list, expected an object"),
    "no such photo": (
        {"a__png": None, "metadata__jsonl": '{"file_name": "../a.png", "text": "x"}'},
        r"line 1: file_name is '\.\./a\.png', and there is no such photo",
    ),
    "no text": (
        {"a__png": None, "metadata__jsonl": '{"file_name": "a.png", "label": 3}'},
        r"found file_name, label, expected a caption as text under 'text'",
    ),
    "two captions": (
        {"a__png": None, "a__txt": "x", "metadata__jsonl": '{"file_name": "a.png", "text": "y"}'},
        r"a\.png: has one caption beside it and another one in metadata\.jsonl",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_captions_are_named(tmp_path, case):
    files, message = BAD[case]
    with pytest.raises(UserError, match=message):
        read_photos(filled(tmp_path, **files))


def test_a_caption_that_is_no_text_is_named(tmp_path):
    folder = filled(tmp_path, a__png=None)
    (folder / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"a\.txt: cannot be read as a caption .*UTF-8"):
        read_photos(folder)


@pytest.mark.parametrize("name", ["ten_sks person", "0_sks person", "-1_sks", "1.5_sks", "_sks", "10_", "mine"])
def test_repeats_that_are_no_number_are_refused(tmp_path, name):
    filled(tmp_path / "10_sks person", a__png=None)
    filled(tmp_path / name, a__png=None)
    with pytest.raises(UserError, match="expected a number of repeats and a prompt, as in '10_sks person'"):
        read_photos(tmp_path)


def test_all_problems_are_in_one_message(tmp_path):
    filled(tmp_path / "10_sks person", a__png=None, a__txt="x", lost__txt="y", metadata__jsonl="{\n[]")
    filled(tmp_path / "many_sks person", a__png=None)
    with pytest.raises(UserError, match="4 problems with captions or repeats") as raised:
        read_photos(tmp_path)
    assert all(part in str(raised.value) for part in ("lost.txt", "line 1", "line 2", "'many'"))
