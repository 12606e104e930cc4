"""The grid's cells, its fingerprint, and what it refuses."""

import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from finetune_monitor import PromptGrid
from finetune_monitor.record.grid import sampling_in_words

GRID = PromptGrid(["a", "b"], [3, 5])


def test_cells_stand_prompt_by_prompt_with_unique_ids():
    cells = GRID.cells
    assert [(c.index, c.prompt, c.seed) for c in cells] == [(0, "a", 3), (1, "a", 5), (2, "b", 3), (3, "b", 5)]
    assert len({c.id for c in cells}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ["a"]},
        {"seeds": [5, 3]},
        {"negative_prompt": "x"},
        {"steps": 9},
        {"guidance": 1.0},
        {"sampler": "DDIMScheduler"},
        {"size": (64, 64)},
    ],
)
def test_whatever_changes_an_image_changes_the_fingerprint(change):
    assert replace(GRID, **change).fingerprint() != GRID.fingerprint()


def test_the_fingerprint_does_not_depend_on_the_kind_of_sequence():
    assert PromptGrid(("a", "b"), (3, 5)).fingerprint() == GRID.fingerprint()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": "a photo"}, "prompts"),
        ({"prompts": ["a", "a"]}, "repeated"),
        ({"seeds": []}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"quality": "best"}, "quality"),
        ({"quality": "fast", "sampler": "DDIMScheduler"}, "quality"),
    ],
)
def test_a_grid_that_cannot_be_rendered_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        replace(GRID, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": [7]}, "prompts: found the entry 7, expected text"),
        ({"prompts": None}, "prompts: found None, expected a list with at least one entry: texts"),
        ({"probe_prompts": "a man"}, "probe_prompts: found 'a man', expected a list with at least one entry: texts"),
        ({"seeds": 3}, "seeds: found 3, expected a list with at least one entry: whole numbers"),
        ({"seeds": [0, 1.5]}, "seeds: found the entry 1.5, expected a whole number between -2**63 and 2**63"),
        ({"seeds": [True]}, "seeds: found the entry True, expected a whole number"),
        ({"seeds": [2**63]}, "seeds: found the entry 9223372036854775808, expected a whole number"),
        ({"seeds": [-(2**63)]}, "seeds: found the entry -9223372036854775808, expected a whole number"),
        ({"seeds": np.array([1, 1])}, "seeds: found repeated entries in [1, 1]"),
        ({"steps": "8"}, "steps: found '8', expected a whole number"),
        ({"steps": 8.5}, "steps: found 8.5, expected a whole number"),
        ({"steps": -1}, "steps: found -1, expected 1 or more"),
        ({"seeds": None, "images_per_prompt": "4"}, "images_per_prompt: found '4', expected a whole number"),
        ({"images_per_probe": None}, "images_per_probe: found None, expected a whole number"),
        ({"guidance": "7"}, "guidance: found '7', expected a number"),
        ({"guidance": None}, "guidance: found None, expected a number"),
        ({"guidance": math.nan}, "guidance: found nan, expected 0 or more"),
        ({"guidance": math.inf}, "guidance: found inf, expected 0 or more"),
        ({"karras": "no"}, "karras: found 'no', expected True or False"),
        ({"size": 512}, "size: found 512, expected (height, width) in pixels, such as (512, 512)"),
        ({"size": "512"}, "size: found '512', expected (height, width)"),
        ({"size": (512,)}, "size: found (512,), expected (height, width)"),
        ({"size": (512, 0)}, "size: found (512, 0), expected (height, width)"),
        ({"size": ("a", 8)}, "size: found ('a', 8), expected (height, width)"),
        ({"sampler": dict}, "sampler: found <class 'dict'>, expected the class name of a diffusers scheduler"),
        ({"negative_prompt": None}, "negative_prompt: found None, expected text"),
        ({"quality": ["fast"]}, "quality: found ['fast'], expected text"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_is_expected(change, said):
    with pytest.raises(ValueError, match=re.escape(f"PromptGrid.{said}")):
        replace(GRID, **change)


def test_numbers_of_other_libraries_are_kept_as_pythons_own():
    found = PromptGrid(["a"], np.arange(2), steps=np.int64(3), guidance=np.float32(2), size=np.array([32, 64]))
    assert found == PromptGrid(["a"], [0, 1], steps=3, guidance=2.0, size=(32, 64))
    assert found.fingerprint() == PromptGrid(["a"], [0, 1], steps=3, guidance=2.0, size=(32, 64)).fingerprint()
    assert {type(value) for value in (*found.seeds, *found.size, found.steps)} == {int}
    assert PromptGrid(["a"], torch.arange(2)).seeds == (0, 1)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63) + 1])
def test_every_seed_that_is_allowed_makes_noise(seed):
    grid = PromptGrid(["a"], [seed])
    assert torch.Generator().manual_seed(grid.cells[0].seed).initial_seed() == seed % 2**64


RECORDED = {
    "prompts": ["a photo of sks person", "sks person, oil painting"],
    "seeds": [0, 1, 2, 3],
    "sampler": "DPMSolverMultistepScheduler",
    "size": (512, 512),
}


@dataclass(frozen=True)
class Tomorrow(PromptGrid):
    """The grid with a field that a later version may add."""

    clip_skip: int = 0


@pytest.mark.parametrize("kind", [PromptGrid, Tomorrow])
def test_grids_recorded_before_keep_their_fingerprint(kind):
    assert kind(**RECORDED).fingerprint() == "e8cc993c6232afa9cd931be45c5705cf0d64976a0237fbe95f515079148c2b76"


def test_a_later_field_is_in_the_fingerprint_where_it_is_not_as_usual():
    assert Tomorrow(**RECORDED, clip_skip=1).fingerprint() != Tomorrow(**RECORDED).fingerprint()


def test_a_range_of_seeds_is_kept_as_numbers():
    assert PromptGrid(["a"], range(3)).seeds == (0, 1, 2)


def test_how_many_images_there_are_is_no_part_of_how_one_is_sampled():
    shared, own = PromptGrid(["a"], [0, 1], steps=3), PromptGrid(["a"], images_per_prompt=2, steps=3)
    assert sampling_in_words(shared) == sampling_in_words(own)
    assert sampling_in_words(own) == "default sampler, 3 steps, guidance 7.5, the model's own size"


def test_a_fast_grid_takes_a_third_of_the_steps_unless_it_names_its_own():
    fast = PromptGrid(["a"], quality="fast")
    assert (PromptGrid(["a"]).steps, fast.steps, fast.at_full_quality) == (25, 8, PromptGrid(["a"]))
    chosen = PromptGrid(["a"], quality="fast", steps=12)
    assert (chosen.steps, chosen.at_full_quality.steps) == (12, 25)
    assert PromptGrid(["a"], steps=2).at_full_quality.steps == 2
    assert PromptGrid(["a"], steps=40, quality="fast").at_full_quality.steps == 40


def test_quality_is_in_the_fingerprint_and_in_words_where_it_is_not_full():
    fast, same_steps = PromptGrid(["a"], quality="fast"), PromptGrid(["a"], steps=8)
    assert fast.fingerprint() != same_steps.fingerprint()
    assert "quality" in sampling_in_words(fast)
    assert "quality" not in sampling_in_words(same_steps)


@pytest.mark.parametrize("seed", [2**63, -(2**63), 10**20])
def test_seeds_that_torch_or_a_record_cannot_have_are_refused(seed):
    with pytest.raises(ValueError, match=f"found the entry {seed}, expected a whole number"):
        PromptGrid(["a"], [1, seed])
    assert PromptGrid(["a"], [2**63 - 1]).cells[0].seed == 2**63 - 1
