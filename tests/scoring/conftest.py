"""What most tests of scoring need: a config on the tiny model, and an empty working directory."""

import pytest

from support.scoring import write_config


@pytest.fixture
def config(tmp_path, tiny_model, photos):
    return write_config(tmp_path, tiny_model, photos)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
