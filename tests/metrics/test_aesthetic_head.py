"""Heads are read as what they are or refused, and give the published scores on real embeddings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.aesthetic_head import (
    PUBLIC_HEADS,
    AestheticHead,
    check_fit,
    clip_of,
    find_head,
    read_head,
    save_head,
    scale_of,
)
from finetune_monitor.models.clip import ClipSource, resolve_clip
from support.heads import DATA, METADATA, WIDTH, needs_data, public, write_clip, write_head

# --- the public heads on real embeddings --------------------------------------------------------------------------


def means_by_rating(head: AestheticHead, model: str) -> np.ndarray:
    """Mean score of the embeddings that people gave each of the ratings 0 to 9."""
    files = [DATA / f"laion/embeddings/{model}_embeddings_rating{rating}.npy" for rating in range(10)]
    return np.array([head(torch.from_numpy(np.load(file)).float()).mean().item() for file in files])


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
@pytest.mark.parametrize("name", PUBLIC_HEADS)
@torch.no_grad()
def test_public_heads_agree_with_the_modules_of_their_authors(name):
    file = public(name)
    assert sha256(file) == PUBLIC_HEADS[name].file.sha256
    state = torch.load(file, weights_only=True, map_location="cpu")
    head, metadata = read_head(file)
    embeddings = nn.functional.normalize(torch.randn(4, head.width, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(head(embeddings), authors_module(name, state)(embeddings)[:, 0], atol=1e-5)
    assert metadata["clip"] == PUBLIC_HEADS[name].clip


def test_addresses_of_the_public_heads():
    assert all("+" not in head.file.url for head in PUBLIC_HEADS.values())
    assert all(len(head.file.sha256) == 64 for head in PUBLIC_HEADS.values())


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
    head, metadata = read_head(write_head(tmp_path / "h.safetensors", metadata={**METADATA, "activation": activation}))
    x = torch.randn(6, WIDTH)
    assert torch.equal(head(x), head.layers[1](between(head.layers[0](x)))[:, 0])
    assert metadata["notice"] == "demo scores"


def test_a_single_layer_needs_no_activation(tmp_path):
    head, _ = read_head(write_head(tmp_path / "linear.pth", (WIDTH, 1)))
    assert head.width == WIDTH


@pytest.mark.parametrize(
    ("name", "metadata", "reason"),
    [
        ("head.pth", None, "activation between its 2 layers is unknown(?s:.*)activation"),
        ("head.safetensors", None, "format=None, version=None in its metadata; expected format=finetune_monitor"),
        ("head.safetensors", {**METADATA, "version": "2"}, "version=2 in its metadata; expected"),
        ("head.safetensors", {**METADATA, "activation": "tanh"}, "is tanh, expected one of none, relu"),
    ],
)
def test_a_head_that_does_not_say_what_it_is_is_refused(tmp_path, name, metadata, reason):
    with pytest.raises(UserError, match=reason):
        read_head(write_head(tmp_path / name, metadata=metadata))


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


# --- the mean of a distribution -----------------------------------------------------------------------------------


def test_a_head_with_grades_gives_the_mean_of_their_distribution(tmp_path):
    head = AestheticHead([WIDTH, 6, 10], "relu", range(1, 11))
    save_head(tmp_path / "head.safetensors", head, {"clip": "ViT-L-14-quickgelu/openai"})
    again, metadata = read_head(tmp_path / "head.safetensors")
    x = torch.randn(5, WIDTH)
    shares = head.outputs(x).softmax(1)
    expected = sum(shares[:, grade - 1] * grade for grade in range(1, 11))
    assert torch.allclose(again(x), expected, atol=1e-5)
    assert metadata["clip"] == "ViT-L-14-quickgelu/openai"
    assert again.widths == [WIDTH, 6, 10]


def test_what_is_saved_is_plain_data_and_cannot_be_overruled_by_metadata(tmp_path):
    save_head(tmp_path / "head.safetensors", AestheticHead([WIDTH, 1]), {"activation": "tanh", "notice": "mine"})
    with safe_open(tmp_path / "head.safetensors", "pt") as file:
        assert file.metadata() == {
            "format": "finetune_monitor.aesthetic_head",
            "version": "1",
            "activation": "none",
            "normalization": "l2",
            "layers": "[8, 1]",
            "notice": "mine",
        }


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"grades": "[1, 2, 3]"}, "linear layers that end in 3 numbers, one per grade"),
        ({"grades": "one, two"}, "grades=one, two in its metadata, expected a list of numbers"),
        ({"grades": "4"}, "grades=4 in its metadata, expected a list"),
        ({"normalization": "none"}, "normalization=none in its metadata, expected l2"),
    ],
)
def test_metadata_that_does_not_fit_the_layers_is_refused(tmp_path, metadata, reason):
    with pytest.raises(UserError, match=reason):
        read_head(write_head(tmp_path / "head.safetensors", metadata=METADATA | metadata))


@pytest.mark.parametrize(("widths", "grades"), [((8, 2), None), ((8, 1), (1, 2)), ((8, 3), (1, 2))])
def test_outputs_that_fit_no_grades_are_a_mistake(widths, grades):
    with pytest.raises(ValueError, match="widths"):
        AestheticHead(widths, "none", grades)


# --- which CLIP it belongs to -------------------------------------------------------------------------------------


def clip_source(name: str, tag: str | None) -> ClipSource:
    return ClipSource(f"{name}/{tag}" if tag else name, tag, Path("unused"), {"model_name": name})


@pytest.mark.parametrize(
    ("trained_on", "clip", "fits"),
    [
        ("ViT-B-32-quickgelu/openai", ("ViT-B-32-quickgelu", "openai"), True),
        ("ViT-B-32/openai", ("ViT-B-32-quickgelu", "openai"), True),
        ("ViT-B-16-quickgelu/openai", ("ViT-B-32-quickgelu", "openai"), False),
        ("ViT-B-32/laion2b_s34b_b79k", ("ViT-B-32-quickgelu", "openai"), False),
        ("some/folder", ("ViT-B-32-quickgelu", "openai"), False),
        (None, ("ViT-B-32-quickgelu", "openai"), True),
    ],
)
def test_named_clips_are_told_apart_by_name(trained_on, clip, fits):
    metadata = {"clip": trained_on} if trained_on else {}
    if fits:
        check_fit(Path("head"), 512, metadata, clip_source(*clip))
    else:
        with pytest.raises(UserError, match=f"trained on CLIP {trained_on}, found clip ViT-B-32-quickgelu/openai"):
            check_fit(Path("head"), 512, metadata, clip_source(*clip))


def test_folders_are_told_apart_by_their_weights(tiny_clip, caplog):
    source = resolve_clip(str(tiny_clip), None)
    for metadata in ({}, {"clip": "elsewhere", "clip_sha256": sha256(source.file)}):
        check_fit(Path("head"), WIDTH, metadata, source)
    assert not caplog.records
    with pytest.raises(UserError, match="trained on CLIP elsewhere whose weights have sha256 0123"):
        check_fit(Path("head"), WIDTH, {"clip": "elsewhere", "clip_sha256": "0123456"}, source)
    with pytest.raises(UserError, match=rf"width 12, but CLIP {tiny_clip} has {WIDTH}"):
        check_fit(Path("head"), 12, {}, source)


def test_a_public_head_beside_a_folder_is_refused_by_its_activation_or_warned_about(tmp_path, tiny_clip, caplog):
    named = {"clip": "ViT-B-32-quickgelu/openai"}
    with pytest.raises(UserError, match="lacks quick_gelu; use the former"):
        check_fit(Path("head"), WIDTH, named, resolve_clip(str(tiny_clip), None))
    folder = write_clip(tmp_path, quick_gelu=True)
    check_fit(Path("head"), WIDTH, named, resolve_clip(str(folder), None))
    assert [f"cannot verify that {folder} is the same" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("ViT-L-14-quickgelu/openai", ("ViT-L-14-quickgelu", "openai")),
        ("assets/demo/clip", ("assets/demo/clip", None)),
        ("clip", ("clip", None)),
        ("", None),
    ],
)
def test_a_head_names_its_clip(clip, expected):
    assert clip_of({"clip": clip}) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [({}, (0, 10)), ({"scale": "1..5"}, (1, 5)), ({"scale": "-1..1.5"}, (-1, 1.5)), ({"scale": "high"}, (0, 10))],
)
def test_a_head_names_its_scale(metadata, expected):
    assert scale_of(metadata) == expected


def test_a_head_that_is_nowhere_is_refused():
    with pytest.raises(UserError, match=r"found 'heads/mine\.pth', expected a file or one of sac\+logos"):
        find_head("heads/mine.pth")
