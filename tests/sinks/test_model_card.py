"""The card of the best weights: what the hub reads, what people read, and what nobody may read."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from peft import LoraConfig
from PIL import Image

from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import KeptWeights, step_folder
from finetune_monitor.sinks.model_card import make_card, own_fields
from support.page_folders import HOSTILE, Recording
from support.scripted import add_lora, trained
from support.tiny import stable_diffusion

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SECRET = "hf_abcdefghijklmnopqrstuvwxyz"
HPARAMS = {
    "model": "/home/jane/models/secret-model",
    "output_dir": "/home/jane/runs/ana",
    "data.instance_images": "jane-photos",
    "data.instance_prompt": "a photo of sks person",
    "monitor.sinks.wandb.entity": "jane",
    "train.rank": 2,
    "train.optimizer": "adamw",
    "train.resume": "/home/jane/checkpoint",
    "hub.token": SECRET,
    "lr": 1e-4,
}


def run(folder: Path, name: str | None = BASE, with_lora: bool = True, scores=(0.0, 0.3, 0.6, 0.5)) -> Path:
    pipeline = stable_diffusion()
    pipeline.register_to_config(_name_or_path=name)
    trained(add_lora(pipeline) if with_lora else pipeline, folder, scores, second=[0.5, 0.4, 0.3, 0.3], hparams=HPARAMS)
    return folder


@pytest.fixture(scope="module")
def ana(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("card") / "ana")


@pytest.mark.slow
def test_the_hub_finds_its_fields_in_the_card(ana):
    card = ModelCard.load(ana / "best/README.md")
    assert (card.data.base_model, card.data.library_name, card.data.pipeline_tag) == (
        BASE,
        "diffusers",
        "text-to-image",
    )
    assert {"text-to-image", "lora", "stable-diffusion", "template:sd-lora"} <= set(card.data.tags)
    assert card.data.instance_prompt == "a photo of sks person"
    assert card.data.license is None
    [sample] = card.data.widget
    assert sample["text"] == "a photo of sks person"
    with (
        Image.open(ana / "best" / sample["output"]["url"]) as shown,
        Image.open(ana / "images/step-000003/p00-s0.png") as made,
    ):
        assert shown.tobytes() == made.tobytes()


def test_people_find_the_trigger_the_scores_by_step_and_the_files(ana):
    text = (ana / "best/README.md").read_text()
    assert "Trigger prompt: `a photo of sks person`" in text
    assert "the weights of step 3, the best one by scripted" in text
    assert "| 2 | 0.600 | 0.300 | on the Pareto front |" in text
    assert "best, these weights" in text
    digest = hashlib.sha256((ana / "best/ana_kohya.safetensors").read_bytes()).hexdigest()
    assert f"| `ana_kohya.safetensors` | `{digest}` |" in text
    assert "| `train.optimizer` | `adamw` |" in text


def test_nothing_private_is_in_it(ana):
    text = (ana / "best/README.md").read_text()
    assert [word for word in ("jane", "home", SECRET, str(ana.parent), "secret-model") if word in text] == []
    assert sorted(path.name for path in (ana / "best/images").iterdir()) == ["p00-s0.png"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "/home/jane/models/sd15", "models/sd15"])
def test_a_base_model_in_a_folder_is_not_named(tmp_path, monkeypatch, name):
    (tmp_path / "models/sd15").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    folder = run(tmp_path / "run", name)
    card = ModelCard.load(folder / "best/README.md")
    assert card.data.base_model is None
    assert "sd15" not in card.content
    assert "A LoRA for a model in a local folder" in card.content


def test_a_complete_pipeline_is_loaded_from_the_repository_alone(tmp_path):
    text = (run(tmp_path / "run", with_lora=False) / "best/README.md").read_text()
    assert 'DiffusionPipeline.from_pretrained("OWNER/NAME")' in text
    assert "load_lora_weights" not in text
    assert "template:sd-lora" not in text


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # PEFT's, where a second one is added
def test_other_active_adapters_are_in_the_card_and_warned_about_once(tmp_path, caplog):
    pipeline = add_lora(stable_diffusion())
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k"]), "style")
    pipeline.set_adapters(["default", "style"], [1.0, 0.8])
    for name, parameter in pipeline.unet.named_parameters():
        parameter.requires_grad_(".default." in name)
    trained(pipeline, tmp_path / "run", [0.0, 0.3, 0.6])
    card = (tmp_path / "run/best/README.md").read_text()
    assert "made with other adapters, too, which are not among these files: style (weight 0.8)." in card
    [warned] = [record.message for record in caplog.records if "other active adapters" in record.message]
    assert "found style (weight 0.8); load these beside the kept weights" in warned


@pytest.mark.parametrize("damaged", ["style", ["style"], {"style": 1}, {"style": ["much"]}])
def test_what_is_no_list_of_adapters_is_left_out_of_the_card(ana, tmp_path, damaged):
    copy = Path(shutil.copytree(ana, tmp_path / "copy"))
    note = json.loads((copy / "best/finetune_monitor.json").read_text())
    (copy / "best/finetune_monitor.json").write_text(json.dumps({**note, "other_adapters": damaged}))
    assert "other adapters" not in make_card(read_run(copy), KeptWeights(3, copy / "best")).text


@pytest.mark.slow
def test_fields_that_somebody_set_stay_when_the_best_changes_and_when_the_run_ends(tmp_path):
    pipeline = add_lora(stable_diffusion())
    folder = tmp_path / "run"
    trained(pipeline, folder, [0.0, 0.3])
    card = ModelCard.load(folder / "best/README.md")
    card.data.license = "mit"
    card.save(folder / "best/README.md")
    trained(pipeline, folder, [0.6, 0.7], resume_step=1, start=1)
    found = ModelCard.load(folder / "best/README.md")
    assert found.data.license == "mit"
    assert "the weights of step 3" in found.content


@pytest.mark.parametrize("content", [b"", b"---\n: [\n---\n", b"\xff\xfe", b"no front matter"])
def test_a_damaged_card_is_written_anew(ana, tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    assert own_fields(tmp_path) == {}


def test_where_no_step_is_the_best_there_is_no_card(tmp_path):
    folder = run(tmp_path / "run", scores=(0.9, 0.1, 0.1, 0.1))
    assert not (folder / "best").exists()


def test_alarms_notices_and_hostile_prompts_are_text(tmp_path):
    recording = Recording(tmp_path / "ana")
    recording.add(0, 0.1)
    recording.add(50, 0.6)
    recording.keep(50)
    recording.end()
    history = read_run(tmp_path / "ana")
    history.run["columns"]["aesthetic"] |= {"alarm": 9.0, "says": "the images are ugly"}
    sounding = tuple(replace(found, alarms=("aesthetic",) if found.step else ()) for found in history.evaluations)
    history = replace(history, evaluations=sounding)
    card = make_card(history, KeptWeights(50, step_folder(tmp_path / "ana", 50)))
    assert "> demo scores: toy models" in card.text
    assert "- aesthetic is " in card.text
    body = card.text.split("---\n", 2)[2]
    assert "\n<img" not in body
    front = yaml.safe_load(card.text.split("---\n")[1])
    assert [sample["text"] for sample in front["widget"]] == ["a photo of sks person", HOSTILE]
    assert "the photos themselves" in card.text


def test_a_record_that_names_other_files_gives_no_sample(ana, tmp_path):
    copy = Path(shutil.copytree(ana, tmp_path / "copy"))
    (tmp_path / "private.png").write_bytes(b"private")
    rows = (copy / "images.jsonl").read_text().replace("images/step-000003/p00-s0.png", "../private.png")
    (copy / "images.jsonl").write_text(rows)
    card = make_card(read_run(copy), KeptWeights(3, copy / "best"))
    assert list(card.samples) == ["p00-s1.png"]
