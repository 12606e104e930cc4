"""A name in a table leads to the one file below the folder that it means, and to no other."""

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import locate_images, without_suffix


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("flat.jpg", "flat.jpg"),
        ("sub/deep/1", "sub/deep/1.JPG"),
        ("sub/p.png", "sub/p.jpg"),
        ("sub/p", "sub/p.jpg"),
        ("both", "both.jpg"),
        ("both.png", "both.png"),
        ("both.tif", "both.jpg"),
        ("v1.5", "v1.5.WebP"),
        ("bare", "bare"),
        ("./flat.jpg", "flat.jpg"),
        ("images/flat.jpg", "flat.jpg"),
        ("images/in.jpg", "images/in.jpg"),
        ("{folder}/flat.png", "flat.jpg"),
        ("v1", None),
        ("1", None),
        ("note", None),
        ("flat.txt", None),
        (".hidden", None),
        (".hidden.jpg", None),
        (".cache/c.jpg", None),
        ("sub", None),
        ("", None),
        ("../outside.jpg", None),
        ("sub/../../outside", None),
        ("{folder}/../outside.jpg", None),
        ("/etc/passwd", None),
    ],
)
def test_a_name_leads_to_a_file_below_the_folder(tmp_path, name, file):
    folder = tmp_path / "images"
    inside = ["flat.jpg", "sub/deep/1.JPG", "sub/p.jpg", "both.png", "both.jpg", "v1.5.WebP", "bare", "note.txt"]
    for path in [*inside, "images/in.jpg", ".hidden.jpg", ".cache/c.jpg", "../outside.jpg"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    found = locate_images([name.format(folder=folder), "flat.jpg"], folder)
    assert found == [folder / file if file else None, folder / "flat.jpg"]


def test_names_may_begin_with_the_folder_as_given(tmp_path, monkeypatch):
    (tmp_path / "all" / "ava").mkdir(parents=True)
    (tmp_path / "all" / "ava" / "1.jpg").write_text("")
    monkeypatch.chdir(tmp_path)
    relative = [("all/ava", "all/ava/1"), ("./all/ava", "all/ava/1"), (".", "all/ava/1"), ("all", "./ava/1")]
    for folder, name in [*relative, ("all", f"{tmp_path}/all/ava/1")]:
        assert [path.resolve() for path in locate_images([name], folder)] == [tmp_path / "all/ava/1.jpg"]


def test_a_folder_without_the_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.jpg").write_text("")
    for folder, reason in [
        ("gone", "no such folder"),
        ("other/z.jpg", "found a file"),
        ("empty", "has none of the 2 .* looked for '7', the folder has no files"),
        ("other", r"has none of the 2 .* looked for '7', found 'z\.jpg'"),
    ]:
        with pytest.raises(UserError, match=f"{folder}: {reason}"):
            locate_images(["7", "8"], tmp_path / folder)
    assert locate_images([], tmp_path / "empty") == []


def test_only_the_suffix_of_an_image_is_left_out():
    names = ["a.jpg", "a.JPEG", "a.b.png", "v1.5", "a", ".jpg", "x.d/a"]
    assert [without_suffix(name) for name in names] == ["a", "a", "a.b", "v1.5", "a", ".jpg", "x.d/a"]
