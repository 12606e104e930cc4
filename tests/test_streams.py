"""The files that are run first or together exist, so none has been renamed unnoticed."""

from support.places import ROOT
from support.streams import LONG, WAITING


def test_the_files_exist_and_are_in_one_list():
    assert [file for file in LONG | WAITING if not (ROOT / file).is_file()] == []
    assert LONG.isdisjoint(WAITING)
