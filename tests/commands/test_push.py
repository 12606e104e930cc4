"""Weights reach the hub by the command alone, with nothing private in them; what goes wrong is said."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard

from finetune_monitor.cli import main
from support.hub import Hub, listening_hub
from support.scripted import add_lora, trained
from support.tiny import stable_diffusion

TOKEN = "hf_of_jane"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # the library's own requests


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    with listening_hub() as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture(scope="module")
def ana(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "ana"
    trained(add_lora(stable_diffusion()), folder, [0.0, 0.4, 0.9, 0.2])
    return folder


def push(folder: Path, *more: object, repository: str = "jane/ana") -> int:
    return main(["push", str(folder), "--repo", repository, *map(str, more)])


def refused(capsys, *arguments: object, **named: str) -> str:
    assert push(*arguments, **named) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_weights_card_and_samples_arrive_in_a_private_repository(hub, ana, capsys):
    assert push(ana) == 0
    assert hub.repositories == {"jane/ana": True}
    assert set(hub.files) == {
        "README.md",
        "ana_kohya.safetensors",
        "finetune_monitor.json",
        "images/p00-s0.png",
        "pytorch_lora_weights.safetensors",
    }
    assert hub.files["ana_kohya.safetensors"] == (ana / "best/ana_kohya.safetensors").read_bytes()
    text = hub.files["README.md"].decode()
    assert 'pipe.load_lora_weights("jane/ana")' in text
    assert ModelCard(text).data.library_name == "diffusers"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    out = capsys.readouterr().out
    assert "pushed:   step 2, private" in out
    assert f"open:     {hub.address}/jane/ana" in out
    assert "license:  not set; add it to the front matter of" in out


@pytest.mark.slow
def test_another_step_goes_to_a_public_repository_where_that_is_asked(hub, ana, capsys):
    assert push(ana, "--step", 1, "--public") == 0
    assert hub.repositories == {"jane/ana": False}
    assert "the weights of step 1." in hub.files["README.md"].decode()
    name = "pytorch_lora_weights.safetensors"
    assert hub.files[name] == (ana / "weights/step-000001" / name).read_bytes()
    assert "pushed:   step 1, public" in capsys.readouterr().out


@pytest.mark.slow
def test_a_card_that_somebody_edited_is_sent_as_it_is(hub, ana, tmp_path, capsys):
    copy = Path(shutil.copytree(ana, tmp_path / "copy"))
    card = copy / "best/README.md"
    card.write_text(card.read_text().replace("library_name:", "license: mit\nlibrary_name:") + "\nMine.\n")
    assert push(copy) == 0
    assert hub.files["README.md"].decode().endswith("Mine.\n")
    assert "license:" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_complete_pipeline_arrives_without_the_names_of_folders(hub, tmp_path):
    place = tmp_path / "jane-private"
    stable_diffusion().save_pretrained(place)
    trained(StableDiffusionPipeline.from_pretrained(place), tmp_path / "run", [0.0, 0.5])
    before = {path: path.read_bytes() for path in (tmp_path / "run/best").rglob("*.json")}
    assert any(b"jane-private" in content for content in before.values()), "the pipeline's own files name its folder"
    assert push(tmp_path / "run") == 0
    assert "unet/diffusion_pytorch_model.safetensors" in hub.files
    assert [name for name, content in hub.files.items() if b"jane-private" in content] == []
    assert {path: path.read_bytes() for path in before} == before
    for name, content in hub.files.items():
        target = tmp_path / "loaded" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "loaded").vae.decoder.conv_out.bias[0].item() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exists", "option", "said"),
    [
        (False, (), "exists and is public, expected private (the def"),
        (True, ("--public",), "exists and is private, expected public"),
    ],
)
def test_a_repository_that_is_not_as_private_as_asked_gets_nothing(hub, ana, capsys, exists, option, said):
    hub.repositories["jane/ana"] = exists
    assert said in refused(capsys, ana, *option)
    assert hub.files == {}


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["/create", "/preupload/main", "/objects/batch", "/lfs/", "/commit/main"])
def test_a_refusal_is_said(hub, ana, capsys, endpoint):
    hub.refuses = endpoint
    err = refused(capsys, ana)
    assert f"jane/ana: {hub.address} refused (" in err
    assert "you may not write here" in err
    assert hub.files == {}


@pytest.mark.slow
def test_without_a_token_nothing_is_asked(hub, ana, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nowhere")
    assert "found no token for" in refused(capsys, ana)
    assert hub.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("repository", ["ana", "jane/ana/x", "jane/a b", "jane/"])
def test_a_name_that_the_hub_does_not_take_is_said_before_anything_is_asked(hub, ana, capsys, repository):
    assert f"--repo: found {repository!r}, expected a name" in refused(capsys, ana, repository=repository)
    assert hub.asked == []


def test_without_a_network_that_is_said(ana, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "jane/ana: cannot reach http://127.0.0.1:9 (" in refused(capsys, ana)


@pytest.mark.slow
def test_a_damaged_front_matter_is_named_before_anything_is_asked(hub, ana, tmp_path, capsys):
    copy = Path(shutil.copytree(ana, tmp_path / "copy"))
    (copy / "best/README.md").write_text("---\n: [\n---\n")
    assert "best/README.md: the front matter is damaged (" in refused(capsys, copy)
    assert hub.asked == []


@pytest.mark.slow
def test_a_step_that_was_not_kept_is_named(hub, ana, capsys):
    assert "has no weights of step 9, expected 1, 2, 3" in refused(capsys, ana, "--step", 9)
