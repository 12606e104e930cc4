"""Exported weights load where the ecosystem loads them, and give the same images."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors import safe_open

from finetune_monitor.models.export import export_weights, not_exported
from finetune_monitor.record.kept_weights import LORA_FILE
from support import tiny
from support.tiny import stable_diffusion as tiny_pipeline

NOTE = {"step": 300}


def image(pipeline: DiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(0)
    made = pipeline("a photo", num_inference_steps=2, generator=seeded, output_type="np", height=32, width=32)
    return made.images


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [4, 2, 16])
@pytest.mark.parametrize("with_text", [False, True])
def test_lora_weights_load_into_a_plain_pipeline(tmp_path, alpha, with_text):
    trained = tiny_pipeline()
    unet_layers = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
    trained.unet.add_adapter(LoraConfig(r=4, lora_alpha=alpha, init_lora_weights=False, target_modules=unet_layers))
    if with_text:
        layers = ["q_proj", "k_proj", "v_proj", "out_proj"]
        trained.text_encoder.add_adapter(
            LoraConfig(r=4, lora_alpha=alpha, init_lora_weights=False, target_modules=layers)
        )
    export_weights(trained, tmp_path / "best", NOTE)
    assert (tmp_path / "best" / LORA_FILE).is_file()
    assert json.loads((tmp_path / "best/finetune_monitor.json").read_text()) == NOTE

    plain = tiny_pipeline()
    untrained = image(plain)
    plain.load_lora_weights(tmp_path / "best")
    assert np.abs(image(plain) - image(trained)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3


def test_a_pipeline_without_adapters_is_written_whole(tmp_path):
    trained = tiny_pipeline(seed=3)
    export_weights(trained, tmp_path / "best", NOTE)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "best")
    assert np.array_equal(image(loaded), image(trained))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tiny.sdxl, tiny.sd3, tiny.flux])
def test_lora_weights_of_other_pipelines_load_too(tmp_path, kind):
    """Adapted as diffusers' own scripts do: the denoiser and the first text encoder."""
    trained, plain = kind(), kind()
    denoiser = trained.unet if hasattr(trained, "unet") else trained.transformer
    denoiser.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    trained.text_encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"]))
    export_weights(trained, tmp_path / "best", NOTE)
    untrained = image(plain)
    plain.load_lora_weights(tmp_path / "best")
    assert np.abs(image(plain) - image(trained)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3


def lora(model, name="default", **options):
    """A LoRA with random weights, which is the active one from then on."""
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"], **options), name)


def same_as_saved(pipeline, folder) -> bool:
    """Whether a plain pipeline with the file makes the image that this one makes."""
    plain = tiny_pipeline()
    plain.load_lora_weights(folder)
    return bool(np.abs(image(plain) - image(pipeline)).max() < 1e-4)


@pytest.fixture
def style(tmp_path):
    """A LoRA file that somebody else has made."""
    other = tiny_pipeline()
    torch.manual_seed(5)
    lora(other.unet)
    export_weights(other, tmp_path / "style", NOTE)
    return tmp_path / "style"


TWO_ADAPTERS = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # PEFT's, where a second one is added


@TWO_ADAPTERS
def test_the_adapter_that_was_trained_is_written_and_not_the_first_one(tmp_path, style):
    trained = tiny_pipeline()
    trained.load_lora_weights(style, adapter_name="style")
    torch.manual_seed(6)
    lora(trained.unet, "ana")
    export_weights(trained, tmp_path / "best", NOTE)
    trained.set_adapters("ana")
    assert same_as_saved(trained, tmp_path / "best")
    trained.set_adapters("style")
    assert not same_as_saved(trained, tmp_path / "best")


@TWO_ADAPTERS
def test_a_frozen_adapter_that_is_active_too_is_left_out(tmp_path, style):
    trained = tiny_pipeline()
    trained.load_lora_weights(style, adapter_name="style")
    lora(trained.unet, "ana")
    trained.set_adapters(["style", "ana"])
    for name, parameter in trained.unet.named_parameters():
        parameter.requires_grad_(".ana." in name)
    export_weights(trained, tmp_path / "best", NOTE)
    trained.set_adapters("ana")
    assert same_as_saved(trained, tmp_path / "best")


def with_style(style, weights):
    """A pipeline where somebody else's LoRA is active, too, and only `ana` has gradients."""
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(style, adapter_name="style")
    lora(pipeline.unet, "ana")
    pipeline.set_adapters(["style", "ana"], list(weights))
    for name, parameter in pipeline.unet.named_parameters():
        parameter.requires_grad_(".ana." in name)
    return pipeline


@TWO_ADAPTERS
@pytest.mark.parametrize(("weights", "noted"), [((1.0, 1.0), [1.0]), ((0.7, 0.4), [0.7]), ((0.0, 1.0), None)])
def test_other_active_adapters_are_noted_with_their_weights(tmp_path, style, weights, noted):
    export_weights(with_style(style, weights), tmp_path / "best", NOTE)
    found = json.loads((tmp_path / "best/finetune_monitor.json").read_text())
    assert found == {**NOTE, **({"other_adapters": {"style": noted}} if noted else {})}
    with safe_open(tmp_path / "best/lora_kohya.safetensors", "pt") as file:
        assert json.loads(file.metadata()["finetune_monitor"]) == found


@TWO_ADAPTERS
def test_what_the_note_says_gives_the_images_that_were_judged(tmp_path, style):
    judged = with_style(style, (0.7, 1.0))
    export_weights(judged, tmp_path / "best", NOTE)
    [(name, [weight])] = json.loads((tmp_path / "best/finetune_monitor.json").read_text())["other_adapters"].items()
    plain = tiny_pipeline()
    plain.load_lora_weights(style, adapter_name=name)
    plain.load_lora_weights(tmp_path / "best", adapter_name="ana")
    plain.set_adapters([name, "ana"], [weight, 1.0])
    assert np.abs(image(plain) - image(judged)).max() < 1e-4


@TWO_ADAPTERS
@pytest.mark.parametrize("stabilized", [False, True])
def test_the_weights_of_other_adapters_leave_out_their_own_scale(tmp_path, stabilized):
    trained = tiny_pipeline()
    lora(trained.unet, "style", lora_alpha=16, use_rslora=stabilized)
    lora(trained.unet, "ana")
    blocks = {"unet": {"down": 0.3, "mid": 1.0, "up": 0.5}}
    trained.set_adapters(["style", "ana"], [blocks, 1.0])
    for name, parameter in trained.unet.named_parameters():
        parameter.requires_grad_(".ana." in name)
    assert not_exported(trained) == {"style": [0.3, 0.5, 1.0]}


@TWO_ADAPTERS
def test_an_adapter_beside_weights_that_are_trained_whole_is_noted_too(tmp_path, style):
    trained = tiny_pipeline()
    trained.load_lora_weights(style, adapter_name="style")
    for name, parameter in trained.unet.named_parameters():
        parameter.requires_grad_("lora_" not in name)
    export_weights(trained, tmp_path / "best", NOTE)
    note = json.loads((tmp_path / "best/finetune_monitor.json").read_text())
    assert note["other_adapters"] == {"style": [1.0]}


@TWO_ADAPTERS
def test_two_adapters_with_gradients_are_refused_by_name(tmp_path, style):
    trained = tiny_pipeline()
    trained.load_lora_weights(style, adapter_name="style")
    lora(trained.unet, "ana")
    for name, parameter in trained.unet.named_parameters():
        parameter.requires_grad_("lora_" in name)
    with pytest.raises(ValueError, match=r"adapters style, ana have gradients, expected one; freeze or unload"):
        export_weights(trained, tmp_path / "best", NOTE)
    assert not (tmp_path / "best").exists()


def test_where_nothing_has_gradients_the_active_adapter_is_written(tmp_path, style):
    judged = tiny_pipeline()
    judged.load_lora_weights(style, adapter_name="style")
    judged.unet.requires_grad_(False)
    export_weights(judged, tmp_path / "best", NOTE)
    assert same_as_saved(judged, tmp_path / "best")


class Compiled(torch.nn.Module):
    """As torch.compile wraps a module, without compiling it."""

    def __init__(self, inner) -> None:
        super().__init__()
        self._orig_mod = inner


@pytest.mark.parametrize("wrap", [Compiled, torch.nn.DataParallel])
def test_wrappers_leave_no_trace_in_the_names(tmp_path, wrap):
    trained = tiny_pipeline()
    lora(trained.unet)
    expected = image(trained)
    trained.register_modules(unet=wrap(trained.unet))
    export_weights(trained, tmp_path / "best", NOTE)
    plain = tiny_pipeline()
    plain.load_lora_weights(tmp_path / "best")
    assert np.abs(image(plain) - expected).max() < 1e-4


@pytest.mark.parametrize("with_lora", [True, False])
def test_blocks_that_are_wrapped_one_by_one_leave_no_trace_either(tmp_path, with_lora):
    trained = tiny_pipeline(seed=3)
    if with_lora:
        lora(trained.unet)
    expected = image(trained)
    trained.unet.mid_block = torch.compile(trained.unet.mid_block, backend="eager")
    export_weights(trained, tmp_path / "best", NOTE)
    loaded = tiny_pipeline(seed=3)
    if with_lora:
        loaded.load_lora_weights(tmp_path / "best")
    else:
        loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "best")
    assert np.abs(image(loaded) - expected).max() < 1e-4


def test_a_layer_that_a_plain_model_lacks_is_refused_by_name(tmp_path):
    trained = tiny_pipeline()
    trained.unet.extra = torch.nn.ModuleDict({"to_q": torch.nn.Linear(4, 4)})
    lora(trained.unet)
    with pytest.raises(ValueError, match=r"extra\.to_q: a plain UNet2DConditionModel has no such layer"):
        export_weights(trained, tmp_path / "best", NOTE)


def test_a_compiled_unet_that_was_trained_whole_is_written_plain(tmp_path):
    trained = tiny_pipeline(seed=3)
    expected = image(trained)
    trained.register_modules(unet=torch.compile(trained.unet, backend="eager"))
    export_weights(trained, tmp_path / "best", NOTE)
    assert np.array_equal(image(StableDiffusionPipeline.from_pretrained(tmp_path / "best")), expected)


def test_an_adapter_in_pefts_own_wrapper_is_written_as_any_other(tmp_path):
    trained = tiny_pipeline()
    config = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"])
    wrapped = get_peft_model(trained.unet, config)
    trained.register_modules(unet=wrapped)
    export_weights(trained, tmp_path / "best", NOTE)
    trained.register_modules(unet=wrapped.get_base_model())
    assert same_as_saved(trained, tmp_path / "best")


def test_a_unet_trained_whole_beneath_a_frozen_adapter_is_written_plain(tmp_path, style):
    trained = tiny_pipeline(seed=3)
    expected = image(trained)
    trained.load_lora_weights(style, adapter_name="style")
    for name, parameter in trained.unet.named_parameters():
        parameter.requires_grad_("lora_" not in name)
    export_weights(trained, tmp_path / "best", NOTE)
    assert np.array_equal(image(StableDiffusionPipeline.from_pretrained(tmp_path / "best")), expected)
    assert hasattr(trained.unet, "peft_config")  # it keeps its adapter


@pytest.mark.parametrize(("config", "kind"), [(LoHaConfig, "loha"), (LoKrConfig, "lokr")])
def test_what_diffusers_cannot_load_is_refused_by_name(tmp_path, config, kind):
    trained = tiny_pipeline()
    trained.unet.add_adapter(config(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match=rf"to_q: found an adapter of the kind {kind}\w*, expected LoRA or DoRA"):
        export_weights(trained, tmp_path / "best", NOTE)
    assert not (tmp_path / "best").exists()
