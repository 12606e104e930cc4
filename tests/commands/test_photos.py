"""`photos` shows what the model will see; warnings do not make it fail."""

import shutil

import pytest
from PIL import Image

from finetune_monitor.cli import main


def test_a_folder_is_shown_as_a_sheet_and_a_table(photos, tmp_path, capsys):
    sheet = tmp_path / "sheet.jpg"
    assert main(["photos", str(photos), "--to", str(sheet), "--resolution", "64"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:4]] == ["photo", "0.png", "1.png", "2.png"]
    assert f"contact sheet: {sheet}" in said
    assert sheet.read_bytes().startswith(b"\xff\xd8\xff")


def test_warnings_do_not_make_it_fail(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "mine/a.png")
    assert main(["photos", "mine"]) == 0
    said = capsys.readouterr().out
    assert "warning: no photo shows a face" in said
    assert "warning: found 1 photo; from fewer than 3" in said
    assert (tmp_path / "contact_sheet.jpg").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path, capsys):
    assert main(["photos", str(tmp_path)]) == 2
    assert "no photos; the folder is empty" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-8", "65", "1e3", "99999"])
def test_a_resolution_that_no_model_has_is_refused(tmp_path, size):
    with pytest.raises(SystemExit):
        main(["photos", str(tmp_path), f"--resolution={size}"])


def test_a_sheet_that_cannot_be_written_is_told_before_the_work(photos, tmp_path, capsys):
    assert main(["photos", str(photos), "--to", str(tmp_path)]) == 2
    found = capsys.readouterr()
    assert found.err == f"finetune-monitor: {tmp_path}: is a folder, expected a file; name a file in it\n"
    assert found.out == ""


def test_a_name_with_a_line_break_stays_on_its_line(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("a\nb.png", "c.png"):
        shutil.copy(photos / "0.png", tmp_path / "mine" / name)
    (tmp_path / "mine/other\nfile.txt").touch()
    assert main(["photos", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["photo", "a\ufffdb.png", "c.png"]
    assert all(line.startswith(("warning: ", "contact sheet: ")) for line in lines[3:])
