"""`weights/` holds the steps that are to be kept, and `best/` the best of the smoothed curve, whenever that shows."""

import json

import pytest
from safetensors import safe_open

from finetune_monitor.record.kept_weights import kept_weights, step_of
from support.scripted import GRID, add_lora, trained


def bias_of(pipeline, folder) -> float:
    return type(pipeline).from_pretrained(folder).vae.decoder.conv_out.bias[0].item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.0, 0.2, 0.4, 0.6], 3),
        ([0.0, 0.4, 0.6, 0.47, 0.54], 3),  # not the best when it was new: its neighbors show that it is
        ([0.0, 0.5, 0.55, 0.9, 0.1], 2),  # one lucky evaluation, which was the best for a while
        ([0.3, 0.35, 0.1, 0.1], 0),  # the base model after all
        ([0.0, 0.5, float("nan"), 0.6, 0.5], 3),
    ],
)
def test_the_weights_and_the_best_step_belong_together(pipeline, run_folder, scores, best):
    summary = trained(pipeline, run_folder, scores)
    assert summary.best_step == best
    assert step_of(run_folder / "best") == (best or None)
    assert not best or bias_of(pipeline, run_folder / "best") == best
    assert len(list((run_folder / "weights").glob("step-*"))) <= 2


def test_the_files_are_linked_not_copied(pipeline, run_folder):
    trained(pipeline, run_folder, [0.0, 0.2, 0.4])
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (run_folder / "best" / weights).samefile(run_folder / "weights/step-000002" / weights)


@pytest.mark.slow
def test_a_run_that_goes_on_can_return_to_a_step_from_before(pipeline, run_folder):
    trained(pipeline, run_folder, [0.0, 0.5, 0.7, 0.65])
    summary = trained(pipeline, run_folder, [0.1, 0.1], resume_step=3, start=3)
    assert summary.best_step == 2
    assert bias_of(pipeline, run_folder / "best") == 2


@pytest.mark.slow
def test_the_file_for_other_tools_has_the_runs_name_its_trigger_and_the_best_image(pipeline, run_folder):
    trained(add_lora(pipeline), run_folder, [0.0, 0.2, 0.4])
    with safe_open(run_folder / f"best/{run_folder.name}_kohya.safetensors", "pt") as file:
        found = file.metadata()
    assert found["modelspec.trigger_phrase"] == GRID.prompts[0]
    assert found["modelspec.thumbnail"].startswith("data:image/jpeg")
    assert json.loads(found["finetune_monitor"])["scores"] == {"scripted": 0.4}


SCORES = [0.0, 0.2, 0.8, 0.8, 0.3, 0.3, 0.3]
SECOND = [0.9, 0.8, 0.1, 0.1, 0.5, 0.4, 0.4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("auto", [1, 2, 3, 4, 5, 6]),
        ("all", [1, 2, 3, 4, 5, 6]),
        ("best", [3, 6]),
        ("last 2", [3, 5, 6]),
        ("pareto", [1, 2, 3, 4, 6]),  # 6 may still join them; 5 is beaten by 4 in both scores
    ],
)
def test_what_is_to_be_kept_of_a_lora_is_kept_with_what_may_become_the_best(pipeline, run_folder, keep, kept):
    summary = trained(add_lora(pipeline), run_folder, SCORES, second=SECOND, keep=keep)
    assert summary.best_step == 3
    assert list(kept_weights(run_folder)) == kept
    assert all(step_of(run_folder / f"weights/step-{step:06d}") == step for step in kept)


@pytest.mark.slow
def test_of_a_complete_pipeline_the_best_and_the_newest_are_kept(pipeline, run_folder):
    trained(pipeline, run_folder, SCORES)
    assert list(kept_weights(run_folder)) == [3, 6]


@pytest.mark.slow
def test_a_resumed_run_loses_the_weights_of_the_steps_that_it_repeats(pipeline, run_folder):
    trained(add_lora(pipeline), run_folder, SCORES)
    trained(pipeline, run_folder, [0.9], resume_step=3, start=3)
    assert list(kept_weights(run_folder)) == [1, 2, 3, 4]
    assert step_of(run_folder / "best") == 4


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("some", "found 'some', expected auto, all, best, pareto, or last N"),
        ("last 0", "found 'last 0'"),
        ("pareto", "besides scripted no metric has a score with a direction"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(pipeline, run_folder, keep, said):
    with pytest.raises(ValueError, match=said):
        trained(pipeline, run_folder, [0.0], keep=keep)
    assert not run_folder.exists()
