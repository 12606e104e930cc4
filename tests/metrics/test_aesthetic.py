"""The aesthetic score is that of the published heads on real embeddings, and CLIP is used as its library documents."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import Described, Metric
from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.aesthetic_head import read_head, scale_of
from finetune_monitor.models.clip import ClipEncoder, has_bf16
from finetune_monitor.record.grid import PromptGrid
from support.heads import DATA, METADATA, WIDTH, needs_data, public, write_head

CELLS = PromptGrid(["a photo"]).cells


def images(count: int) -> list[Image.Image]:
    photo = Image.fromarray(astronaut())
    return [photo.crop((0, 0, 512 - 20 * i, 512 - 10 * i)) for i in range(count)]


# --- the metric ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_follow_from_the_documented_use_of_open_clip(tiny_clip, tmp_path):
    head_file = write_head(tmp_path / "head.safetensors")
    found = Aesthetic(clip=str(tiny_clip), head=head_file).score(images(19), CELLS)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    features = torch.cat([model.eval().encode_image(preprocess(image)[None]) for image in images(19)])
    expected = read_head(head_file)[0](features / features.norm(dim=-1, keepdim=True)).numpy()
    assert list(found) == ["aesthetic"]
    assert np.allclose(found["aesthetic"], expected, atol=1e-5)
    assert found["aesthetic"].std() > 0


def shifted(path: Path, shift: float, **metadata: str) -> Path:
    """A head whose scores lie within 1 of `shift`."""
    state = {"layers.0.weight": torch.eye(1, WIDTH), "layers.0.bias": torch.tensor([shift])}
    save_file(state, path, {**METADATA, "activation": "none", **metadata})
    return path


@pytest.mark.parametrize(
    ("shift", "metadata", "said"),
    [(100, {}, "outside 0..10"), (-3, {}, "outside 0..10"), (8, {"scale": "1..5"}, "outside 1..5"), (8, {}, None)],
)
def test_scores_are_never_clipped_and_those_outside_the_scale_are_warned_about_once(
    tiny_clip, tmp_path, caplog, shift, metadata, said
):
    metric = Aesthetic(clip=str(tiny_clip), head=shifted(tmp_path / "head.safetensors", shift, **metadata))
    for _ in range(3):
        found = metric.score(images(2), CELLS[:2])["aesthetic"]
        assert np.abs(found - shift).max() <= 1
        assert len(set(found)) == 2
    assert [said in record.getMessage() for record in caplog.records] == ([True] if said else [])
    assert metric.bounds == scale_of(metadata)
    assert metric.score([], ())["aesthetic"].shape == (0,)


def test_it_says_what_it_measures_with_and_leaves_the_random_state_alone(tiny_clip, tmp_path):
    head = write_head(tmp_path / "head.safetensors")
    torch.manual_seed(3)
    metric = Aesthetic(clip=str(tiny_clip), head=head)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))
    assert metric.describe().weights == {
        "clip": {"id": str(tiny_clip), "sha256": sha256(tiny_clip / "open_clip_model.safetensors")},
        "head": {"id": str(head), "sha256": sha256(head)},
    }
    assert metric.describe().notice == "demo scores"
    assert [column.unit for column in metric.describe().columns.values()] == ["predicted rating"]
    assert isinstance(metric, Metric)
    assert isinstance(metric, Described)


def test_two_heads_share_one_encoder_and_each_image_is_encoded_once(tiny_clip, tmp_path, monkeypatch):
    heads = [write_head(tmp_path / "a.safetensors"), write_head(tmp_path / "b.safetensors", (WIDTH, 1))]
    alone = [Aesthetic(clip=str(tiny_clip), head=head) for head in heads]
    encoder = ClipEncoder(str(tiny_clip))
    shared = [Aesthetic(encoder, head=heads[0]), Aesthetic(encoder, head=heads[1], name="second")]
    seen: list[int] = []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    batch = images(5)
    for one, other, name in zip(alone, shared, ("aesthetic", "second"), strict=True):
        expected = one.score(batch, CELLS)["aesthetic"]
        assert np.array_equal(other.score(batch, CELLS)[name], expected)
        assert other.describe().weights == one.describe().weights
        assert other.name == name
    assert seen == [5]


def test_a_head_of_another_width_is_refused(tiny_clip, tmp_path):
    head = write_head(tmp_path / "head.safetensors", (12, 5, 1))
    with pytest.raises(UserError, match=rf"head\.safetensors: the head takes .* width 12, but CLIP {tiny_clip} has 8"):
        Aesthetic(clip=str(tiny_clip), head=head)


def test_a_head_for_other_weights_in_a_folder_is_refused_before_anything_is_scored(tiny_clip, tmp_path):
    head = write_head(tmp_path / "head.safetensors", metadata=METADATA | {"clip": "mine", "clip_sha256": "0123abc"})
    with pytest.raises(UserError, match="trained on CLIP mine whose weights have sha256 0123abc"):
        Aesthetic(clip=str(tiny_clip), head=head)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(hub_cache: Path, repository: str) -> Path:
    place = hub_cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0123abc")
    (place / "snapshots/0123abc").mkdir(parents=True)
    return place / "snapshots/0123abc/open_clip_model.safetensors"


def test_a_head_for_another_clip_of_the_same_width_is_refused(tmp_path, hub_cache):
    snapshot(hub_cache, "timm/vit_base_patch16_clip_224.openai").touch()
    metadata = {**METADATA, "clip": "ViT-B-32-quickgelu/openai"}
    head = write_head(tmp_path / "head.safetensors", (512, 1), metadata)
    with pytest.raises(UserError, match="trained on CLIP ViT-B-32-quickgelu/openai, found clip ViT-B-16-quickgelu"):
        Aesthetic("ViT-B-16-quickgelu", "openai", head)


@pytest.mark.slow
@needs_data
@torch.no_grad()
def test_vit_l_14_at_full_size_with_the_default_head(tmp_path, hub_cache, monkeypatch):
    torch.manual_seed(0)
    for drawing in ("normal_", "uniform_"):  # 400 million numbers, twice, take longer than all the rest
        monkeypatch.setattr(torch.Tensor, drawing, lambda tensor, *_, **__: tensor)
    model = open_clip.create_model("ViT-L-14-quickgelu").eval()
    drawn = torch.randn(2**16, generator=torch.Generator().manual_seed(0)).half() / 50
    for name, weight in model.named_parameters():
        if not name.startswith("visual.") or name.endswith("bias"):
            weight.zero_()
        elif weight.dim() > 1:
            weight.view(-1).copy_(drawn.repeat(weight.numel() // len(drawn) + 1)[: weight.numel()])
    state = {name: weight.half() for name, weight in model.state_dict().items()}
    save_file(state, snapshot(hub_cache, "timm/vit_large_patch14_clip_224.openai"))
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(DATA))
    found = Aesthetic().score(images(2), CELLS[:2])["aesthetic"]
    preprocess = open_clip.image_transform(224, is_train=False)  # OpenAI's mean and standard deviation
    features = model.encode_image(preprocess(images(2)[0])[None])
    expected = read_head(public("sac+logos+ava1-l14-linearMSE"))[0](features / features.norm(dim=-1, keepdim=True))
    assert features.shape == (1, 768)
    assert abs(found[0] - found[1]) > 1e-3
    assert np.allclose(found[0], expected.numpy(), atol=0.01 if has_bf16() else 1e-4)
