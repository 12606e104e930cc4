"""The grid's cells, its fingerprint, and what it refuses."""

from dataclasses import dataclass, replace

import pytest

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
    with pytest.raises(ValueError, match=f"found {seed}, expected whole numbers up to {2**63 - 1}"):
        PromptGrid(["a"], [1, seed])
    assert PromptGrid(["a"], [2**63 - 1]).cells[0].seed == 2**63 - 1
