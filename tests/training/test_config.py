"""The config: defaults, overrides, and one message for all problems."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError, create_model

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.sections import Section, problems_of
from finetune_monitor.training.config import RuleConfig, load_config, recorded_config
from finetune_monitor.training.registry import RULES
from support.places import ROOT

CONFIGS = ROOT / "configs"
DEMO = CONFIGS / "demo.yaml"
TRAININGS = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.name.startswith("sweep_")]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)
def test_the_configs_that_we_ship_are_valid_and_open_with_their_command(path):
    load_config(path)
    assert path.read_text().startswith(f"# finetune-monitor train --config configs/{path.name}")


def test_overrides_are_yaml_values_at_dotted_keys():
    config = load_config(DEMO, ["train.max_steps=7", "monitor.grid.images_per_prompt=5", "train.learning_rate=1e-5"])
    assert config.train.max_steps == 7
    assert config.monitor.grid.images_per_prompt == 5
    assert config.train.learning_rate == 1e-5


@pytest.mark.parametrize("written", ["no", '"no"'])
def test_yamls_bare_no_is_a_precision(written):
    assert load_config(DEMO, [f"train.mixed_precision={written}"]).train.mixed_precision == "no"


@pytest.mark.parametrize(
    ("written", "read"), [("off", "never"), ("no", "never"), ("on", "always"), ("always", "always"), ("auto", "auto")]
)
def test_yamls_truth_values_say_whether_latents_are_cached(written, read):
    assert load_config(DEMO, [f"train.cache_latents={written}"]).train.cache_latents == read


def test_prodigy_takes_a_rate_near_one():
    assert load_config(DEMO, ["train.optimizer=prodigy", "train.learning_rate=1.0"]).train.learning_rate == 1.0


def test_all_problems_are_named_at_once_with_the_nearest_key():
    with pytest.raises(UserError) as caught:
        load_config(
            DEMO,
            ["train.lerning_rate=1", "train.rank=many", "data.resolution=100", "monitor.grid.guidance=-1", "sed=1"],
        )
    text = str(caught.value)
    assert "train.lerning_rate: unknown key (did you mean learning_rate?)" in text
    assert "train.rank: found 'many'" in text
    assert "data.resolution: found 100" in text
    assert "monitor.grid.guidance: found -1" in text
    assert "sed: unknown key (did you mean seed?)" in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("monitor.metrics.face_similarity.recogniser=x", "did you mean recognizer?"),
        ("monitor.sinks.wandb.mod=offline", "did you mean mode?"),
        ("monitor.sinks.wandb.mode=always", "found 'always'"),
        ("monitor.stopping=[{metric: face_similarty}]", "did you mean face_similarity?"),
        ("monitor.stopping=[{metric: face_similarity_stars}]", "face_similarity_stars needs monitor.thresholds"),
        ("monitor.metrics={face_similarity: null, aesthetic: null}", "expected at least one"),
        ("train.learning_rate=inf", "train.learning_rate: found 'inf', expected a finite number"),
        ("train.prior_loss_weight=.nan", "train.prior_loss_weight: found nan, expected a finite number"),
        ("monitor.max_overhead=.inf", "monitor.max_overhead: found inf, expected a finite number"),
        (
            "monitor.stopping=[{rule: guard, metric: copying, level: .nan}]",
            "level: found nan, expected a finite number",
        ),
        ("monitor.grid.prompts=[a, a]", "repeated"),
        ("monitor.grid.prompts=[]", "monitor.grid.prompts"),
        ("data.class_images=null", "data.class_images"),
        ("train.max_steps=0", "train.max_steps: found 0, expected 1 or more"),
        ("train.max_steps=many", "train.max_steps: found 'many', expected a whole number"),
        ("train.max_steps=1.5", "train.max_steps: found 1.5, expected a whole number"),
        ("monitor.evaluation_timeout=0", "monitor.evaluation_timeout: found 0, expected more than 0"),
        ("train.learning_rate=high", "train.learning_rate: found 'high', expected a number"),
        ("train.text_encoder=maybe", "train.text_encoder: found 'maybe', expected true or false"),
        ("train.compile=maybe", "train.compile: found 'maybe', expected true, false, or 'auto'"),
        ("data.class_prompt=[]", "data.class_prompt: found [], expected a prompt, a list of prompts, or null"),
        ("train.method=dora", "train.method: found 'dora', expected 'lora' or 'full'"),
        ("train.cache_latents=sometimes", "found 'sometimes'"),
        ("train.optimizer=lion", "found 'lion'"),
        ("train.optimizer=prodigy", "learning_rate is 0.001, but optimizer is prodigy"),
        ("train={optimizer: prodigy, learning_rate: 1, text_encoder_learning_rate: 0.5}", "prodigy has a single rate"),
        ("data.workers=-1", "data.workers: found -1"),
        ("monitor.report=true", "monitor.report: unknown key (did you mean monitor.sinks.report?)"),
        (
            "monitor.stopping=[{rule: patience, patience: 0}]",
            "monitor.stopping.0.patience: found 0, expected 1 or more",
        ),
        ("monitor.stopping=[{patience: 3}]", "monitor.stopping.0.patience: unknown key"),
        ("monitor.stopping=[{rule: plato}]", "monitor.stopping.0.rule: found 'plato'"),
        ("monitor.stopping=[{prompts: [0, 2]}]", "monitor.stopping.0.prompts: found 2, expected 0 to 1"),
        ("monitor.stopping=[{rule: target, score: 1.5}]", "monitor.stopping.0.score: found 1.5, expected -1 to 1"),
        ("monitor.stopping=[{rule: target}]", "monitor.stopping.0.score: found both or neither of score and share"),
        ("monitor.grid.seeds=[4]", "found 6 and a list of seeds; set only one"),
        ("monitor.grid.images_per_prompt=0", "monitor.grid.images_per_prompt: found 0, expected 1 to 1000"),
        ("monitor.stopping=[{metric: face_similarity_held_out}]", "needs data.held_out"),
        (
            "monitor.stopping=[{metric: subject_similarity}]",
            "found 'subject_similarity', expected one of face_similarity",
        ),
        ("monitor.metrics.face_similarity=null", "monitor.metrics.leakage: needs face_similarity"),
        (
            "monitor.metrics.leakage={recognizer: sface}",
            "monitor.metrics.leakage.recognizer: found sface, expected dlib, the recognizer of face_similarity",
        ),
        ("monitor=null", "monitor: found None, expected keys with values"),
        ("monitor.grid=5", "monitor.grid: found 5, expected keys with values"),
        ("monitor.metrics=[face_similarity]", "monitor.metrics: found ['face_similarity'], expected keys with values"),
        ("monitor.metrics.face_similarity=true", "found True, expected keys with values"),
        ("monitor.stopping={rule: guard}", "monitor.stopping: found {'rule': 'guard'}, expected a list"),
        ("monitor.grid.prompts=a person", "monitor.grid.prompts: found 'a person', expected a list"),
        ("monitor.hooks=[{hook: command, run: ls}]", "monitor.hooks.0.run: found 'ls', expected a list"),
        ("data.instance_images=null", "data.instance_images: found None, expected a path"),
        ("train.max_steps", "dotted.key=value"),
        ("train.max_steps=[", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said(override, said):
    with pytest.raises(UserError) as caught:
        load_config(DEMO, [override])
    assert said in str(caught.value)


def test_a_probe_that_names_the_subject_is_refused_and_ordinary_words_name_nobody():
    woman = "data.instance_prompt=a photo of sks woman"
    for others in ("woman", "a photo of a person"):
        load_config(DEMO, [woman, f"data.class_prompt={others}"])
    with pytest.raises(UserError, match="'a photo of Sks, at sea' contains 'sks', which names the subject"):
        load_config(DEMO, [woman, "monitor.grid.probe_prompts=[a photo of a man, 'a photo of Sks, at sea']"])


def test_a_default_rule_without_its_metric_is_named_as_a_default(tmp_path):
    values = yaml.safe_load(DEMO.read_text())
    del values["monitor"]["stopping"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    off = "monitor.metrics={face_similarity: null, leakage: null, recognized: null, diversity: {}}"
    with pytest.raises(UserError, match=r"default of monitor.stopping; set it to \[{metric: aesthetic}\], or to \[\]"):
        load_config(tmp_path / "config.yaml", [off])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found nothing, expected keys"),
        ("- a", "found a list, expected keys"),
        ("a: [", r"x\.yaml: not valid YAML: line 2, column 1: while parsing a flow node, did not find"),
        ("model: a\ndata: photos: b", "x.yaml: not valid YAML: line 2, column 13: mapping values are not allowed"),
        ("a: \udce4", "not UTF-8 text; expected YAML; save the file as UTF-8"),
        ("model: a\nmodel: b\n", "line 1, column 1: duplicate keys: model"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=said):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        load_config(tmp_path / "no.yaml")


def test_the_resolved_config_reads_back_the_same(tmp_path):
    config = load_config(DEMO)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config


def test_a_tilde_is_the_home_folder():
    config = load_config(DEMO, ["output_dir=~/runs", "data.class_images=~/class", "data.instance_images=~/ana"])
    for path in (config.output_dir, config.data.class_images, config.data.instance_images):
        assert path.parent == Path.home()


def test_a_rule_may_watch_the_stars_of_what_is_measured_where_thresholds_are_named():
    given = ["monitor.thresholds=~/thresholds.json", "monitor.stopping=[{metric: aesthetic_stars}]"]
    config = load_config(DEMO, given)
    assert config.monitor.thresholds == Path.home() / "thresholds.json"
    assert config.flat()["monitor.thresholds"] == str(config.monitor.thresholds)
    with pytest.raises(UserError, match=r"found 'aesthetic_stars', expected one of .*face_similarity_stars"):
        load_config(DEMO, [*given, "monitor.metrics.aesthetic=null"])


def test_a_margin_needs_a_second_prompt():
    given = ["monitor.metrics={clip_score: {}, aesthetic: {}}", "monitor.stopping=[{metric: prompt_margin}]"]
    assert load_config(DEMO, given).main_columns[:1] == ["prompt_margin"]
    with pytest.raises(
        UserError, match=r"stopping\.0\.metric: prompt_margin needs two prompts or more; add to monitor"
    ):
        load_config(DEMO, [*given, "monitor.grid.prompts=[a]"])
    alone = load_config(DEMO, [given[0], "monitor.stopping=[]", "monitor.grid.prompts=[a]"])
    assert alone.main_columns == ["face_similarity", "aesthetic", "clip_score"]


def test_likeness_by_dino_needs_its_weights():
    given = ["monitor.metrics.subject_similarity={}", "monitor.stopping=[{metric: subject_similarity_dino}]"]
    with pytest.raises(UserError, match=r"_dino needs monitor\.metrics\.subject_similarity\.dino; give it a value"):
        load_config(DEMO, given)
    found = load_config(DEMO, [*given, "monitor.metrics.subject_similarity.dino=facebook/dinov2-small"])
    assert "subject_similarity_dino" in found.main_columns
    assert "subject_similarity_held_out" not in found.main_columns


def test_flat_hyperparameters_are_plain_values():
    flat = load_config(DEMO).flat()
    assert flat["train.rank"] == 32
    assert all(isinstance(value, (str, int, float, bool)) for value in flat.values())
    assert yaml.safe_dump(flat)


@pytest.mark.slow
def test_a_wrong_config_is_told_without_loading_what_measures_and_draws():
    code = (
        "import sys, finetune_monitor.training.config\n"
        "sys.exit(bool({'torch', 'diffusers', 'open_clip', 'plotly'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_key_that_this_version_does_not_know_is_left_out_of_a_recorded_config(tmp_path):
    config = load_config(DEMO)
    content = yaml.safe_load(config.to_yaml())
    content["monitor"]["grid"]["upscale"] = 2
    content["tomorrow"] = {"all": "better"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    assert recorded_config(path) == (config, ["monitor.grid.upscale", "tomorrow"])
    with pytest.raises(UserError, match="upscale: unknown key"):
        load_config(path)
    path.write_text(yaml.safe_dump({**content, "train": {"rank": "many"}}))
    with pytest.raises(UserError, match="found 'many'"):
        recorded_config(path)


class Sharpness:
    """A rule of another kind, with options of its own."""

    name = "sharpness"

    @dataclass(frozen=True)
    class Options:
        metric: str = "aesthetic"
        least: float = 1.0

    def __init__(self, metric, least):
        self.metric = metric

    def decide(self, watched):
        return None


def test_with_several_rules_each_has_its_own_keys(monkeypatch):
    monkeypatch.setitem(RULES.classes, "sharpness", Sharpness)
    model = create_model("Rules", __base__=Section, stopping=(list[RuleConfig], ...))
    given = {"stopping": [{"rule": "sharpness", "least": 2}, {"rule": "patience", "patience": 3}]}
    first, second = model.model_validate(given).stopping
    assert (first.rule, first.metric, first.least) == ("sharpness", "aesthetic", 2.0)
    assert (second.rule, second.metric, second.patience) == ("patience", "face_similarity", 3)
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"stopping": [{"rule": "sharpness", "leest": 2}]})
    assert problems_of(caught.value, model) == ["stopping.0.leest: unknown key (did you mean least?)"]


def test_the_seed_is_one_that_torch_and_the_records_can_have():
    largest = load_config(DEMO, [f"seed={2**63 - 1}"]).seed
    torch.manual_seed(largest)
    for wrong, said in ((10**20, f"less than {2**63}"), (-1, "0 or more")):
        with pytest.raises(UserError, match=f"seed: found {wrong}, expected {said}"):
            load_config(DEMO, [f"seed={wrong}"])
