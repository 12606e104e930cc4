"""Damaged files of every kind, from fixed seeds: each is refused with a message or read, and nothing else happens."""

import pytest

from support.fuzz import fuzz, targets

SEED, EACH = 20, 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
def test_nothing_but_messages_comes_out_of_damaged_files(folder):
    found = targets(folder / "files")
    outcomes = [fuzz(target, SEED + number, EACH) for number, target in enumerate(found)]
    assert [foreign for outcome in outcomes for foreign in outcome.foreign] == []
    refusing = {target.area for target, outcome in zip(found, outcomes, strict=True) if outcome.refused}
    assert refusing == {target.area for target in found}
