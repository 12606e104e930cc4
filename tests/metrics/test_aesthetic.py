"""The aesthetic score is that of the published heads on real embeddings, and CLIP is used as its library documents."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import nn

import finetune_monitor.metrics.aesthetic as aesthetic
from finetune_monitor.clip import ClipEncoder
from finetune_monitor.errors import UserError
from finetune_monitor.files import sha256
from finetune_monitor.grid import PromptGrid
from finetune_monitor.metrics import Described, Metric
from finetune_monitor.metrics.aesthetic import Aesthetic, AestheticHead, read_head
from finetune_monitor.weights import AESTHETIC_HEADS

DATA = Path(__file__).parents[2] / "../shared/data/aesthetic"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the public heads beside the checkout are not here")
CELLS = PromptGrid(["a photo"]).cells
METADATA = {"format": "finetune_monitor.aesthetic_head", "version": "1", "activation": "relu", "notice": "demo scores"}
WIDTH = 8


def images(count: int) -> list[Image.Image]:
    photo = Image.fromarray(astronaut())
    return [photo.crop((0, 0, 512 - 20 * i, 512 - 10 * i)) for i in range(count)]


def save_head(path: Path, widths=(WIDTH, 5, 1), metadata: dict[str, str] | None = METADATA) -> Path:
    torch.manual_seed(1)
    state = AestheticHead(widths).state_dict()
    state[f"layers.{len(widths) - 2}.bias"] += 5
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path, metadata)
    return path


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny CLIP with random weights in open_clip's layout, with a normalisation of its own."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return folder


# --- the public heads on real embeddings --------------------------------------------------------------------------


def means_by_rating(head: AestheticHead, model: str) -> np.ndarray:
    """Mean score of the embeddings that people gave each of the ratings 0 to 9."""
    files = [DATA / f"laion/embeddings/{model}_embeddings_rating{rating}.npy" for rating in range(10)]
    return np.array([head(torch.from_numpy(np.load(file)).float()).mean().item() for file in files])


def public(name: str) -> Path:
    return next(DATA.rglob(f"{name}.pth"))


@needs_data
@pytest.mark.parametrize(
    ("name", "model", "first", "last"),
    [
        ("sa_0_4_vit_l_14_linear", "vit_l_14", -2.46, 11.30),
        ("sac+logos+ava1-l14-linearMSE", "vit_l_14", 1.655, 5.747),
    ],
)
@torch.no_grad()
def test_public_heads_rise_over_the_ratings(name, model, first, last):
    means = means_by_rating(read_head(public(name))[0], model)
    assert means[[0, -1]] == pytest.approx([first, last], abs=0.005)
    assert np.corrcoef(means, np.arange(10))[0, 1] > 0.95


@needs_data
def test_the_default_head_collapses_to_the_known_affine_map():
    head, _ = read_head(public("sac+logos+ava1-l14-linearMSE"))
    with torch.no_grad():
        bias = head(torch.zeros(1, 768))
        weight = head(torch.eye(768)) - bias
    assert weight.norm().item() == pytest.approx(17.996, abs=0.001)
    assert bias.item() == pytest.approx(5.2366, abs=0.0001)


@needs_data
@pytest.mark.parametrize("name", AESTHETIC_HEADS)
@torch.no_grad()
def test_public_heads_agree_with_the_modules_of_their_authors(name):
    file = public(name)
    assert sha256(file) == AESTHETIC_HEADS[name].sha256
    state = torch.load(file, weights_only=True, map_location="cpu")
    head, metadata = read_head(file)
    embeddings = nn.functional.normalize(torch.randn(4, head.width, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(head(embeddings), authors_module(name, state)(embeddings)[:, 0], atol=1e-5)
    assert metadata["clip"] == aesthetic.PUBLIC_HEADS[name][1]


def authors_module(name: str, state: dict[str, torch.Tensor]) -> nn.Module:
    """The heads as their repositories define them."""
    if set(state) == {"weight", "bias"}:
        module: nn.Module = nn.Linear(state["weight"].shape[1], 1)
    elif name.endswith("reluMSE"):
        module = nn.Sequential(
            *(nn.Linear(768, 1024), nn.ReLU(), nn.Dropout(0.2), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1)),
        )
    else:
        module = nn.Sequential(
            *(nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        )
    module.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
    return module.eval()


# --- files of heads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "between"), [("relu", nn.ReLU()), ("none", nn.Identity())])
def test_the_activation_stands_between_the_layers(tmp_path, activation, between):
    head, metadata = read_head(save_head(tmp_path / "h.safetensors", metadata={**METADATA, "activation": activation}))
    x = torch.randn(6, WIDTH)
    assert torch.equal(head(x), head.layers[1](between(head.layers[0](x)))[:, 0])
    assert metadata["notice"] == "demo scores"


def test_a_single_layer_needs_no_activation(tmp_path):
    head, _ = read_head(save_head(tmp_path / "linear.pth", (WIDTH, 1)))
    assert head.width == WIDTH


@pytest.mark.parametrize(
    ("name", "metadata", "reason"),
    [
        ("head.pth", None, "activation between its 2 layers is not known(?s:.*)activation"),
        ("head.safetensors", None, "format=None, version=None; expected format=finetune_monitor"),
        ("head.safetensors", {**METADATA, "version": "2"}, "version=2; expected"),
        ("head.safetensors", {**METADATA, "activation": "tanh"}, "is tanh, expected one of none, relu"),
    ],
)
def test_a_head_that_does_not_say_what_it_is_is_refused(tmp_path, name, metadata, reason):
    with pytest.raises(UserError, match=reason):
        read_head(save_head(tmp_path / name, metadata=metadata))


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"conv.weight": (1, 4)},
        {"layers.0.weight": (1, 4)},
        {"layers.0.weight": (2, 4), "layers.0.bias": (2,)},
        {"layers.0.weight": (3, 4), "layers.0.bias": (3,), "layers.2.weight": (1, 2), "layers.2.bias": (1,)},
        {"weight": (1, 3, 3), "bias": (1,)},
    ],
)
def test_what_is_no_head_is_refused(tmp_path, shapes):
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not an aesthetic head"):
        read_head(tmp_path / "other.pth")


# --- the metric ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_follow_from_the_documented_use_of_open_clip(clip_folder, tmp_path):
    head_file = save_head(tmp_path / "head.safetensors")
    found = Aesthetic(clip=str(clip_folder), head=head_file).score(images(19), CELLS)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    features = torch.cat([model.eval().encode_image(preprocess(image)[None]) for image in images(19)])
    expected = read_head(head_file)[0](features / features.norm(dim=-1, keepdim=True)).numpy()
    assert list(found) == ["aesthetic"]
    assert np.allclose(found["aesthetic"], expected, atol=1e-5)
    assert found["aesthetic"].std() > 0


@pytest.mark.parametrize(("shift", "expected"), [(100.0, 10.0), (-100.0, 0.0)])
def test_ratings_beyond_the_bounds_are_set_to_the_bound(clip_folder, tmp_path, shift, expected):
    state = {"layers.0.weight": torch.ones(1, WIDTH), "layers.0.bias": torch.tensor([shift])}
    save_file(state, tmp_path / "head.safetensors", {**METADATA, "activation": "none"})
    metric = Aesthetic(clip=str(clip_folder), head=tmp_path / "head.safetensors")
    assert metric.score(images(2), CELLS[:2])["aesthetic"].tolist() == [expected] * 2
    assert metric.score([], ())["aesthetic"].shape == (0,)


def test_it_says_what_it_measures_with_and_leaves_the_random_state_alone(clip_folder, tmp_path):
    head = save_head(tmp_path / "head.safetensors")
    torch.manual_seed(3)
    metric = Aesthetic(clip=str(clip_folder), head=head)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))
    assert metric.describe() == {
        "clip": {"id": str(clip_folder), "sha256": sha256(clip_folder / "open_clip_model.safetensors")},
        "head": {"id": str(head), "sha256": sha256(head)},
        "notice": "demo scores",
    }
    assert isinstance(metric, Metric)
    assert isinstance(metric, Described)


def test_two_heads_share_one_encoder_and_each_image_is_encoded_once(clip_folder, tmp_path, monkeypatch):
    heads = [save_head(tmp_path / "a.safetensors"), save_head(tmp_path / "b.safetensors", (WIDTH, 1))]
    alone = [Aesthetic(clip=str(clip_folder), head=head) for head in heads]
    encoder = ClipEncoder(str(clip_folder))
    shared = [Aesthetic(encoder, head=heads[0]), Aesthetic(encoder, head=heads[1], name="second")]
    seen: list[int] = []
    encode = encoder._model.encode_image
    monkeypatch.setattr(encoder._model, "encode_image", lambda x, **kw: seen.append(len(x)) or encode(x, **kw))
    pictures = images(5)
    for one, other, name in zip(alone, shared, ("aesthetic", "second"), strict=True):
        expected = one.score(pictures, CELLS)["aesthetic"]
        assert np.array_equal(other.score(pictures, CELLS)[name], expected)
        assert other.describe() == one.describe()
        assert other.name == name
    assert seen == [5]


def test_a_head_of_another_width_is_refused(clip_folder, tmp_path):
    head = save_head(tmp_path / "head.safetensors", (12, 5, 1))
    with pytest.raises(UserError, match=rf"head\.safetensors: the head takes .* width 12, CLIP {clip_folder} gives 8"):
        Aesthetic(clip=str(clip_folder), head=head)


def test_a_head_that_is_nowhere_is_refused(clip_folder):
    with pytest.raises(UserError, match=r"found 'heads/mine\.pth', expected a file or one of sac\+logos"):
        Aesthetic(clip=str(clip_folder), head="heads/mine.pth")


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
    head = save_head(tmp_path / "head.safetensors", (512, 1), metadata)
    with pytest.raises(UserError, match="trained on CLIP ViT-B-32-quickgelu/openai, found clip ViT-B-16-quickgelu"):
        Aesthetic("ViT-B-16-quickgelu", "openai", head)


@pytest.mark.slow
@needs_data
@torch.no_grad()
def test_vit_l_14_at_full_size_with_the_default_head(tmp_path, hub_cache, monkeypatch):
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-L-14-quickgelu").eval()
    save_file(model.state_dict(), snapshot(hub_cache, "timm/vit_large_patch14_clip_224.openai"))
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(DATA))
    found = Aesthetic().score(images(2), CELLS[:2])["aesthetic"]
    preprocess = open_clip.image_transform(224, is_train=False)  # OpenAI's mean and standard deviation
    features = model.encode_image(torch.stack([preprocess(image) for image in images(2)]))
    expected = read_head(public("sac+logos+ava1-l14-linearMSE"))[0](features / features.norm(dim=-1, keepdim=True))
    assert features.shape == (2, 768)
    assert np.allclose(found, expected.numpy(), atol=1e-4)
