"""What describes a config is right: the commented default, the JSON Schema, and the meaning of every key."""

import json
import re
from importlib.metadata import version

import jsonschema
import pytest
import yaml

from finetune_monitor.cli import main
from finetune_monitor.sweep.spec import SweepConfig
from finetune_monitor.training.config import Config, load_config
from finetune_monitor.training.describe import commented_config, json_schema, keys_of, rule_sections, schema_of
from support.places import ROOT

SWEEPS = sorted((ROOT / "configs").glob("sweep*.yaml"))
CONFIGS = sorted(set((ROOT / "configs").glob("*.yaml")) - {*SWEEPS})
SCHEMAS = {"train": ROOT / "configs/schema.json", "sweep": ROOT / "configs/schema_sweep.json"}
REQUIRED = {
    "model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "output_dir": "runs/ana",
    "data": {
        "instance_images": "photos/ana",
        "instance_prompt": "a photo of sks person",
        "class_images": "photos/person",
        "class_prompt": "a photo of a person",
    },
    "monitor": {"grid": {"prompts": ["a photo of sks person"]}},
}


def test_the_printed_config_is_that_of_the_required_keys_alone(tmp_path, capsys):
    assert main(["config"]) == 0
    path = tmp_path / "config.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == Config.model_validate(REQUIRED)


def test_what_is_off_can_be_turned_on_by_its_comment_mark():
    text = commented_config()
    turned_on = re.sub(r"^( *)# (\w+: \{)", r"\1\2", text, flags=re.MULTILINE)
    metrics = yaml.safe_load(turned_on)["monitor"]["metrics"]
    assert {"leakage", "copying", "clip_score", "face_similarity"} <= metrics.keys()
    assert Config.model_validate(yaml.safe_load(turned_on)).monitor.metrics.copying.alarm == 0.2


@pytest.mark.parametrize("section", [Config, *rule_sections().values()])
def test_every_key_says_what_it_means_in_a_sentence(section):
    keys = [key for key in keys_of(section) if key.name != "rule"]
    assert [key.name for key in keys if not key.meaning.endswith(".")] == []
    assert [key.name for key in keys if "None" in key.meaning] == []
    assert [key.name for key in keys if "e+" in key.kind] == []


@pytest.mark.parametrize("path", [*CONFIGS, *SWEEPS], ids=lambda path: path.name)
def test_the_configs_fit_their_schema_and_name_it(path):
    schema, kind = (schema_of(SweepConfig, "sweep"), "sweep") if path in SWEEPS else (json_schema(), "train")
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    assert path.read_text().splitlines()[1] == f"# yaml-language-server: $schema={SCHEMAS[kind].name}"


@pytest.mark.parametrize("early", ["asha", {"rule": "asha", "reduction": 4}, None])
def test_the_sweeps_schema_takes_early_termination_as_a_name_or_a_section(early):
    content = yaml.safe_load(SWEEPS[0].read_text()) | {"early_termination": early}
    jsonschema.validate(content, schema_of(SweepConfig, "sweep"))
    for wrong in ({"early_termination": "hyperband"}, {"retry": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | wrong, schema_of(SweepConfig, "sweep"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": {"ranks": 4}},
        {"train": {"method": "dora"}},
        {"monitor": {"stopping": [{"rule": "plateau", "windows": 2}]}},
        {"monitor": {"metrics": {"copying": {"alarms": 1}}}},
    ],
)
def test_the_schema_refuses_what_the_config_refuses(wrong):
    content = yaml.safe_load(CONFIGS[0].read_text())
    for section, keys in wrong.items():
        content[section] |= keys
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema())


def test_the_schema_allows_classes_of_ones_own():
    content = yaml.safe_load(CONFIGS[0].read_text())
    content["monitor"]["stopping"] = [{"rule": "my_module:MyRule", "metric": "sharpness"}]
    content["monitor"]["metrics"]["sharpness"] = {"class": "my_module:Sharpness"}
    jsonschema.validate(content, json_schema())


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_schemas_beside_the_configs_are_new(kind, capsys):
    tested = re.search(r"^pydantic==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]
    if version("pydantic") != tested:
        pytest.skip(f"schemas differ between versions of pydantic; the files are written by {tested}")
    assert main(["config", "--schema", kind]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(SCHEMAS[kind].read_text()), "run `make schema`"
