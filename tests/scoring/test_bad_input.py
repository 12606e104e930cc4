"""What cannot be scored is refused in words before anything is rendered, and nothing is written or lost."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import needs, scoring
from support.scoring import score, write_config, write_images


@pytest.fixture
def world(tmp_path, tiny_model, photos, monkeypatch):
    """A folder with a LoRA file, images, a config, and the base model `base`."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, tiny_model, photos)
    scoring.write_formats(tmp_path, scoring.lora(1))
    (tmp_path / "base").symlink_to(tiny_model)
    (tmp_path / "photos").symlink_to(photos)
    write_images(tmp_path / "samples", {"ana_000100_00_20260101120000.png": 0}, photos)
    return tmp_path


def tensors(world: Path) -> dict[str, torch.Tensor]:
    return load_file(world / "kohya.safetensors")


def sdxl(world):
    found = {key: value for key, value in tensors(world).items() if "attn2_to_k" in key or "attn2_to_v" in key}
    wide = {key: torch.zeros(4, 2048) if key.endswith("lora_down.weight") else value for key, value in found.items()}
    save_file(wide, world / "bad.safetensors")


def sd2_by_metadata(world):
    found = {key: value for key, value in tensors(world).items() if "attn2" not in key}
    save_file(found, world / "bad.safetensors", metadata={"ss_base_model_version": "sd_v2_v"})


def flux(world):
    key = "lora_unet_double_blocks_0_img_attn_proj"
    save_file(
        {f"{key}.lora_down.weight": torch.zeros(4, 8), f"{key}.lora_up.weight": torch.zeros(8, 4)},
        world / "bad.safetensors",
    )


def nothing_matches(world):
    key = "unet.nowhere.attn1.to_q"
    save_file(
        {f"{key}.lora_A.weight": torch.zeros(4, 8), f"{key}.lora_B.weight": torch.zeros(8, 4)},
        world / "bad.safetensors",
    )


def other_shapes(world):
    found = {key: torch.zeros(4, 24) if key.endswith("down.weight") else value for key, value in tensors(world).items()}
    plain = {key: value for key, value in found.items() if "attn2" not in key}
    save_file(plain, world / "bad.safetensors")


def no_lora(world):
    save_file({"emb_params": torch.zeros(2, 16)}, world / "bad.safetensors")


def whole_model(world):
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)}, world / "bad.safetensors")


def loha(world):
    save_file({"lora_unet_x.hada_w1_a": torch.zeros(2)}, world / "bad.safetensors")


def dora(world):
    save_file({**tensors(world), "lora_unet_x.dora_scale": torch.zeros(2)}, world / "bad.safetensors")


def truncated(world):
    content = (world / "kohya.safetensors").read_bytes()
    (world / "bad.safetensors").write_bytes(content[: len(content) // 2])


def damaged(world):
    (world / "bad.safetensors").write_bytes(struct.pack("<Q", 20) + b'{"a": nonsense ......')


def text(world):
    (world / "bad.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def empty_file(world):
    (world / "bad.safetensors").write_bytes(b"")


def pickled(world):
    torch.save({"a": torch.zeros(2)}, world / "bad.safetensors")


BASE = ("--base", "base", "--config", "config.yaml")

BAD_FILES = {
    sdxl: (
        "found a LoRA for Stable Diffusion XL, but --base base is Stable Diffusion 1.x",
        "name the base model of this LoRA",
    ),
    sd2_by_metadata: ("found a LoRA for Stable Diffusion 2.x, but --base base is Stable Diffusion 1.x",),
    flux: ("found a LoRA for Flux, but --base base is Stable Diffusion 1.x",),
    nothing_matches: ("does not fit the base model",),
    other_shapes: ("does not fit the base model", "size mismatch"),
    no_lora: ("found other weights (the first is emb_params), expected a LoRA",),
    whole_model: ("found a base model among other paths; name it only once, with --base",),
    loha: ("found a LoHa, which diffusers cannot load completely; expected a LoRA",),
    dora: ("found a DoRA in kohya's format, which diffusers cannot load completely; expected a LoRA",),
    truncated: ("incomplete: found", "copy it again"),
    damaged: ("damaged or incomplete",),
    text: ("not a safetensors file",),
    empty_file: ("not a safetensors file",),
    pickled: ("found a pickle, which can run any code and is never loaded",),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
def test_files(world, capsys, make):
    make(world)
    assert score("bad.safetensors", "kohya.safetensors", *BASE, "-o", "out") == 2
    said = capsys.readouterr().err
    assert all(part in said for part in ("bad.safetensors", *BAD_FILES[make])), said
    assert not (world / "out/run.json").exists()
    assert not list(world.glob("out/*/run.json"))


def in_folder(name, content=b""):
    def make(world):
        (world / "folder").mkdir()
        if name:
            (world / "folder" / name).write_bytes(content)

    return make


def damaged_image(world):
    shutil.copytree(world / "samples", world / "folder")
    (world / "folder/ana_000200_00_20260101120000.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


def taken(world):
    (world / "out").mkdir()
    (world / "out/thesis.txt").write_text("mine")


def taken_by_a_file(world):
    (world / "out").write_text("mine")


def other_scores(world):
    (world / "out").mkdir()
    (world / "out/score.json").write_text(json.dumps({"paths": ["/elsewhere"], "base": None, "runs": {}, "files": {}}))


def state(content):
    def make(world):
        (world / "out").mkdir()
        (world / "out/score.json").write_text(json.dumps(content))

    return make


def incomplete_base(world):
    shutil.copytree(world / "base", world / "model")
    (world / "model/unet/diffusion_pytorch_model.safetensors").unlink()


def nothing(world):
    pass


CONFIG = ("--config", "config.yaml")
PHOTOS = ("--references", "photos")
FACES = ("--references", "photos", "--set", "monitor.metrics={face_similarity: {recognizer: dlib}, aesthetic: null}")

BAD_ARGUMENTS = {
    "nowhere": (nothing, ("nowhere", *CONFIG), "nowhere: no such file or folder"),
    "an empty folder": (in_folder(""), ("folder", *CONFIG), "found nothing, expected images"),
    "a folder of texts": (in_folder("a.txt"), ("folder", *CONFIG), "found only a.txt, expected images"),
    "a folder of pickles": (in_folder("a.ckpt"), ("folder", *CONFIG), "pickles are never loaded"),
    "a damaged image": (damaged_image, ("folder", *CONFIG), "1 of 2 photos cannot be read"),
    "a single image": (nothing, ("samples/ana_000100_00_20260101120000.png", *CONFIG), "found a single image"),
    "a LoRA without a base": (nothing, ("kohya.safetensors", *PHOTOS), "found LoRA files but no --base"),
    "a LoRA file that is gone": (nothing, ("loras/ana.safetensors", *BASE), "ana.safetensors: no such file or folder"),
    "a folder that is gone": (nothing, ("loras/ana", *BASE), "loras/ana: no such file or folder"),
    "a folder or a model": (nothing, ("loras/ana", *PHOTOS), "loras/ana: no such file or folder, and not a base model"),
    "no LoRA file": (nothing, ("config.yaml", *BASE), "not a LoRA file"),
    "strengths of images": (nothing, ("samples", *CONFIG, "--strengths", "0.5"), "--strengths: found no LoRA file"),
    "a base among others": (nothing, ("base", "samples", *CONFIG), "found a base model among other paths"),
    "no references": (nothing, ("samples",), "--references: found none"),
    "missing references": (nothing, ("samples", "--references", "nobody"), "nobody: no such folder"),
    "references without a face": (nothing, ("samples", *FACES[2:], "--references", "samples"), "show no face"),
    "a base that is nowhere": (nothing, ("kohya.safetensors", *CONFIG, "--base", "nowhere"), "nowhere: no such folder"),
    "an incomplete base": (
        incomplete_base,
        ("kohya.safetensors", *CONFIG, "--base", "model"),
        "unet/weights as *.safetensors",
    ),
    "a target of somebody else": (taken, ("samples", *CONFIG), "found thesis.txt, expected an empty folder"),
    "a target that is a file": (taken_by_a_file, ("samples", *CONFIG), "out: found a file"),
    "a target with other scores": (other_scores, ("samples", *CONFIG), "found scores with paths"),
    "a state that is no object": (state([]), ("samples", *CONFIG), "score.json"),
    "a state without runs": (state({"files": {}}), ("samples", *CONFIG), "damaged"),
    "a place elsewhere": (
        state({"runs": {"a": "../photos"}, "files": {}}),
        ("samples", *CONFIG),
        "damaged",
    ),
    "a place that is none": (state({"runs": {"a": 3}, "files": {}}), ("samples", *CONFIG), "damaged"),
    "files of no step": (
        state({"runs": {}, "files": {"a": {"one": [{"file": "x"}]}}}),
        ("samples", *CONFIG),
        "damaged",
    ),
    "files that are none": (
        state({"runs": {}, "files": {"a": {"1": [3]}}}),
        ("samples", *CONFIG),
        "damaged",
    ),
    "no metric for images": (
        nothing,
        ("samples", *PHOTOS, "--set", "monitor.metrics={clip_score: {}, face_similarity: null, aesthetic: null}"),
        "clip_score: not all prompts are known",
    ),
    "an unknown key": (nothing, ("samples", *CONFIG, "--set", "monitor.nonsense=1"), "monitor.nonsense"),
}


def without_face(world):
    """The photos' folder of the row without a face."""
    from PIL import Image

    for path in (world / "samples").iterdir():
        Image.new("RGB", (64, 64), "gray").save(path)


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_arguments(world, capsys, case, monkeypatch):
    make, arguments, message = BAD_ARGUMENTS[case]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make(world)
    if case == "references without a face":
        without_face(world)
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    assert score(*arguments, "-o", "out") == 2
    found = capsys.readouterr().err
    assert message in found, found
    assert "Traceback" not in found
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (world / "out/run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strength", ["0", "nan", "much"])
def test_strengths_are_numbers(world, capsys, strength):
    with pytest.raises(SystemExit) as error:
        score("kohya.safetensors", *BASE, "--strengths", strength)
    assert error.value.code == 2
    assert "expected a number other than 0" in capsys.readouterr().err


@needs.ordinary_user
def test_a_folder_without_permission(world, capsys):
    (world / "locked").mkdir(mode=0o500)
    assert score("samples", *CONFIG, "-o", "locked/out") == 2
    assert "cannot write to it (Permission denied)" in capsys.readouterr().err


def test_a_target_below_a_file(world, capsys):
    assert score("samples", *CONFIG, "-o", "config.yaml/out") == 2
    assert "cannot write to it (Not a directory)" in capsys.readouterr().err


def test_weights_of_a_network_that_cannot_be_had(world, capsys, monkeypatch):
    """The metric that decides must be there; of others the reason is printed."""
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(world / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(world / "torch"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    sets = "monitor.metrics={face_similarity: {recognizer: sface}, aesthetic: null}"
    assert score("samples", "--references", "photos", "--set", sets, "-o", "out") == 2
    found = capsys.readouterr().err
    assert "SFace" in found
    assert "recognizer: dlib" in found
    assert "--set monitor.metrics.face_similarity.KEY=VALUE" in found


@pytest.mark.slow
def test_a_metric_that_cannot_be_made_is_named_with_the_reason(world, capsys):
    sets = "monitor.metrics={face_similarity: {recognizer: dlib}, recognized: {}, leakage: {}, aesthetic: null}"
    assert score("samples", "--references", "photos", "--set", sets, "-o", "out") == 0
    said = capsys.readouterr().out
    assert "measured: face_similarity\n" in said
    assert "missing:  recognized: monitor.metrics.recognized.gallery: found neither" in said
    assert "missing:  leakage: needs images of prompts that do not name the subject" in said
