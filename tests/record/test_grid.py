"""The grid's cells, its fingerprint, and what it refuses."""

from dataclasses import replace

import pytest

from finetune_monitor import PromptGrid

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
def test_whatever_changes_a_image_changes_the_fingerprint(change):
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
    ],
)
def test_a_grid_that_cannot_be_rendered_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        replace(GRID, **change)
