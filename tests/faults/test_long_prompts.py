"""A prompt that is too long for the text encoder: one warning quotes what is dropped."""

import logging

import pytest

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.models.prompts import cut_prompts
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support import tiny
from support.loops import Brightness

LONG = "a " * 75 + "photo of sks person"


def fitting(pipeline) -> str:
    """As many words as fit exactly."""
    words = "a " * 80
    ids = pipeline.tokenizer(words, truncation=True).input_ids
    return pipeline.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", [tiny.stable_diffusion, tiny.sdxl], ids=["sd1", "sdxl"])
def test_what_is_dropped_is_named(kind):
    pipeline = kind()
    [warning] = cut_prompts(pipeline, ["a photo of sks person", LONG, LONG])
    assert warning.startswith(f"prompt {LONG!r}: the text encoder reads 75 tokens and drops 'photo of sks person'")
    assert not list(cut_prompts(pipeline, [fitting(pipeline), ""]))


def test_an_encoder_without_that_limit_reads_the_rest():
    assert not list(cut_prompts(tiny.flux(), [LONG]))


def test_the_monitor_says_it_once_and_diffusers_not_in_every_evaluation(pipeline, run_folder, caplog):
    grid = PromptGrid([LONG], [0], steps=1, probe_prompts=["a " * 75 + "cat"], images_per_probe=1, size=(32, 32))
    diffusers = logging.getLogger("diffusers")
    diffusers.addHandler(caplog.handler)
    try:
        with FinetuneMonitor(pipeline, grid, [Brightness()], run_folder, every=1) as monitor:
            monitor.on_step_end(1)
    finally:
        diffusers.removeHandler(caplog.handler)
    assert caplog.text.count("drops 'photo of sks person'") == 1
    assert caplog.text.count("drops 'cat'") == 1
    assert "truncated" not in caplog.text


@pytest.mark.slow
def test_a_training_says_it_of_its_own_prompts(write_config, tmp_path, caplog):
    changes = [f"data.instance_prompt={LONG}", "monitor.enabled=false", "train.max_steps=1"]
    assert run(load_config(write_config(), [f"output_dir={tmp_path / 'long'}", *changes])) == 0
    assert caplog.text.count("drops 'photo of sks person'") == 1
