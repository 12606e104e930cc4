"""Text in a config is taken as typed, even where YAML reads a number, a date, a truth value, or a comment."""

from pathlib import Path

import pytest
import yaml

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.training.config import Config, load_config
from support.tiny import tiny_config

TYPED = [
    "photo: sks",
    "2026-11-28",
    "[V] person",
    "{V} person",
    "a photo #2",
    "# sks",
    "2026",
    "1e3",
    "0x10",
    "1_000",
    "no",
    "on",
    "true",
    ".inf",
    "12:30",
    "&sks person",
    "*sks",
    "!sks person",
    "- sks",
    "sks, person",
    "50% sks",
    "@sks",
    "`sks`",
    "a 'photo' of sks",
    'a "photo" of sks',
    "| sks",
    "photo:",
    " sks ",
    "ana\\sks",
    "null and void",
]

IN_FILES = ["2026-11-28", "2026", "1e3", "0x10", "1_000", "no", "on", "true", ".inf", "12:30"]
"""Those that are one plain value in a YAML file."""


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, photos: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(tiny_config(tmp_path, tiny_model, photos))
    return path


@pytest.mark.parametrize("typed", TYPED)
def test_an_override_of_a_text_key_is_taken_as_typed(typed, config):
    found = load_config(config, [f"data.instance_prompt={typed}", f"output_dir={typed.strip()}"])
    assert found.data.instance_prompt == typed
    assert found.output_dir == Path(typed.strip())


@pytest.mark.parametrize("typed", IN_FILES)
def test_a_plain_value_of_a_text_key_in_a_file_is_taken_as_typed(typed, config):
    text = config.read_text().replace("instance_prompt: a photo of sks person", f"instance_prompt: {typed}")
    config.write_text(text.replace("prompts: [a photo of sks person]", f"prompts: [{typed}, 'a: b', c: d]"))
    found = load_config(config)
    assert found.data.instance_prompt == typed
    assert tuple(found.monitor.grid.prompts) == (typed, "a: b", "c: d")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ('data.instance_prompt="a photo"', "a photo"),
        ("data.instance_prompt='a photo'", "a photo"),
        ("data.class_prompt=null", None),
        ("data.class_prompt=~", None),
        ("data.class_prompt=", None),
        ("data.class_prompt=Null hypothesis", "Null hypothesis"),
    ],
)
def test_quotes_and_null_keep_their_meaning(change, value, config):
    found = load_config(config, [change])
    assert getattr(found.data, change.partition("=")[0].rpartition(".")[2]) == value


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("data.held_out=2", lambda found: found.data.held_out == 2),
        ("train.max_steps=1_000", lambda found: found.train.max_steps == 1000),
        ("train.learning_rate=1e-4", lambda found: found.train.learning_rate == 1e-4),
        ("train.text_encoder=yes", lambda found: found.train.text_encoder is True),
        ("train.mixed_precision=no", lambda found: found.train.mixed_precision == "no"),
        ("train.cache_latents=off", lambda found: found.train.cache_latents == "never"),
        ("monitor.grid.prompts=[a b, 2026]", lambda found: list(found.monitor.grid.prompts) == ["a b", "2026"]),
        ("monitor.grid.seeds=[3, 4]", lambda found: list(found.monitor.grid.seeds) == [3, 4]),
    ],
)
def test_other_keys_are_read_as_yaml(change, read, config):
    assert read(load_config(config, [change]))


def test_what_is_not_valid_yaml_in_a_file_says_that_text_needs_quotes(config):
    config.write_text(config.read_text().replace("instance_prompt: a photo", "instance_prompt: [V] photo"))
    with pytest.raises(UserError, match=r"(?s)not valid YAML: .*text with a colon, #, \[, or \{ must be in quotes"):
        load_config(config)


def test_texts_of_a_sweep_are_taken_as_typed(config, tmp_path):
    path = tmp_path / "sweep.yaml"
    content = {
        "base": str(config),
        "output_dir": str(tmp_path / "sweep"),
        "set": {"data": {"class_prompt": 2026}},
        "axes": {"data.instance_prompt": ["a", "b"]},
        "people": {"ana": {"data.instance_images": 1}, "bea": {"data.instance_images": 2}},
    }
    path.write_text(yaml.safe_dump(content).replace("- a", "- 2026-11-28").replace("- b", "- 1e3"))
    found = load_sweep(path, ["output_dir=runs/hash #2", "set.data.class_prompt=photo: sks"])
    assert found.output_dir == Path("runs/hash #2")
    assert found.set["data.class_prompt"] == "photo: sks"
    assert found.axes["data.instance_prompt"] == ["2026-11-28", "1e3"]
    assert [keys["data.instance_images"] for keys in found.people.values()] == ["1", "2"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("2026", "2026"),
        ("no", "no"),
        ("[2026, no]", ("2026", "no")),
        ("\n    - 1e3\n    - a photo", ("1e3", "a photo")),
    ],
)
def test_a_text_or_a_list_of_texts_is_taken_as_typed(typed, read, config):
    content = yaml.safe_load(config.read_text())
    content["data"]["class_prompt"] = "PLACE"
    config.write_text(yaml.safe_dump(content).replace("PLACE", typed))
    assert load_config(config).data.class_prompt == read
    if "\n" not in typed:
        assert load_config(config, [f"data.class_prompt={typed}"]).data.class_prompt == read


def test_a_path_into_nothing_holds_no_text():
    assert not holds_text(Config, ())
    assert not holds_text(Config, ("data",))
    assert not holds_text(Config, ("data", "instance_prompt", "deeper", 0))
    assert not holds_text(Config, (0, "model"))
