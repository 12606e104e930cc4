"""A pipeline that cannot render anything is an error with its remedy at step 0, or a warning if requested."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.base.errors import UserError
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import EVALUATIONS
from support import tiny
from support.loops import Brightness

GRID = PromptGrid(["a photo of sks person"], [0, 1], steps=2, size=(32, 32))


class Wrapper(nn.Module):
    """A wrapper of the user's own, which hides the model's attributes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.inner = model

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.inner(*arguments, **named)


class Older(StableDiffusionPipeline):
    """A pipeline that reports its steps in another way."""

    def __call__(self, prompt=None, height=None, width=None, generator=None, prompt_embeds=None, callback=None):
        raise AssertionError("must not be called")


def without(**parts: Any) -> Any:
    pipeline = tiny.stable_diffusion()
    for name, part in parts.items():
        pipeline.register_modules(**{name: part})
    return pipeline


def without_maximum() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.tokenizer.model_max_length = int(1e30)
    return pipeline


def wrapped() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.unet = Wrapper(pipeline.unet)
    return pipeline


def sharded() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.unet.__class__ = type("FullyShardedDataParallel", (type(pipeline.unet),), {})
    return pipeline


def older() -> Any:
    return Older(**tiny.stable_diffusion().components, requires_safety_checker=False)


REFUSED = {
    "no text encoder": (lambda: without(text_encoder=None), r"pipeline\.text_encoder: found None.*load the pipeline"),
    "no tokenizer": (lambda: without(tokenizer=None), r"pipeline\.tokenizer: found None"),
    "no VAE": (lambda: without(vae=None), r"pipeline\.vae: found None"),
    "a tokenizer without a maximum": (without_maximum, r"model_max_length: found 1e\+30, expected at most 77.*= 77"),
    "a wrapper of one's own": (wrapped, r"pipeline\.unet: found Wrapper.*unwrap it"),
    "sharded": (sharded, r"found FullyShardedDataParallel.*unwrap it"),
    "another step callback": (older, r"calling Older takes no callback_on_step_end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_known_before_rendering_is_refused_with_its_remedy(case, run_folder):
    make, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        FinetuneMonitor(make(), GRID, [Brightness()], run_folder)
    assert not run_folder.exists()


@pytest.mark.parametrize(
    ("kind", "size", "multiple"),
    [(tiny.stable_diffusion, (36, 32), 8), (tiny.sd3, (32, 30), 8), (tiny.flux, (4, 32), 8)],
)
def test_a_size_that_the_model_cannot_generate_is_refused(kind, size, multiple, run_folder):
    grid = PromptGrid(["a cat"], [0], steps=1, size=size)
    with pytest.raises(ValueError, match=rf"grid\.size: found {size[0]} x {size[1]} .*multiples of {multiple}"):
        FinetuneMonitor(kind(), grid, [Brightness()], run_folder)


def half_unet() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.unet.to(torch.bfloat16)
    return pipeline


def elsewhere() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.unet.to("meta")
    return pipeline


def not_finite() -> Any:
    pipeline = tiny.stable_diffusion()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(torch.nan)
    return pipeline


def too_large() -> Any:
    pipeline = tiny.stable_diffusion()
    pipeline.unet.register_forward_pre_hook(lambda module, inputs: torch.empty(1 << 60))
    return pipeline


FAILING = {
    "mixed precision": (half_unet, r"differ in precision \(.*unet bfloat16.*pass autocast"),
    "several devices": (elsewhere, r"different devices \(.*unet meta.*move all of them to one"),
    "weights that are not finite": (not_finite, "not finite; check its weights"),
    "too large for the memory": (too_large, r"one image does not fit into memory: reduce grid\.size"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILING)
def test_what_shows_at_the_first_rendering_ends_the_run_before_it_starts(case, run_folder):
    make, said = FAILING[case]
    with pytest.raises(UserError, match=said) as found:
        FinetuneMonitor(make(), GRID, [Brightness()], run_folder).start()
    assert "set on_failure to warn" in str(found.value)
    assert not (run_folder / EVALUATIONS).read_text()
    monitor = FinetuneMonitor(tiny.stable_diffusion(), GRID, [Brightness()], run_folder).start()  # mended, same folder
    assert monitor.close().evaluations[0].scores["brightness"].n == 2


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILING)
def test_who_wants_to_go_on_is_warned_once(case, run_folder, caplog):
    monitor = FinetuneMonitor(FAILING[case][0](), GRID, [Brightness()], run_folder, every=1, on_failure="warn")
    with monitor:
        assert not monitor.on_step_end(1)
    assert caplog.text.count("rendering failed; the images are recorded as missing") == 1
    assert [found.scores["brightness"].missing for found in read_run(run_folder).evaluations] == [2, 2]


def test_what_fails_later_is_missing_and_ends_nothing(pipeline, run_folder, caplog):
    with FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, every=1) as monitor:
        with torch.no_grad():
            pipeline.unet.conv_out.bias.fill_(torch.nan)
        assert not monitor.on_step_end(1)
    assert "not finite" in caplog.text


def test_another_choice_is_refused(pipeline, run_folder):
    with pytest.raises(ValueError, match="on_failure: found 'ignore', expected one of raise, warn"):
        FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, on_failure="ignore")


def test_precisions_that_autocast_unites_are_not_blamed(run_folder):
    pipeline = half_unet()
    pipeline.vae.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    pipeline.vae.decoder.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    with pytest.raises(UserError, match="ZeroDivisionError") as found:
        FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, autocast=torch.bfloat16).start()
    assert "precision" not in str(found.value)
