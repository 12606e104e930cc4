"""Images named by the rules of other trainers become the steps of a run, with the prompts and seeds they have."""

import json
import shutil

import pytest
from PIL import Image, PngImagePlugin

from finetune_monitor.cli import main
from finetune_monitor.record.grid import ELSEWHERE, PromptGrid
from finetune_monitor.record.history import read_run
from support.page_folders import Recording
from support.scoring import score, write_images

TIME = "20260101120000"


def kohya(step, place, seed=None, name="ana"):
    return f"{name}_{step}_{place:02d}_{TIME}{'' if seed is None else f'_{seed}'}.png"


FOLDERS = {
    "kohya, steps": ([kohya(f"{step:06d}", place, 42 + place) for step in (0, 100) for place in (0, 1)], [0, 100]),
    "kohya, epochs": ([kohya(f"e{epoch:06d}", place) for epoch in (1, 2, 10) for place in (0, 1)], [1, 2, 10]),
    "SimpleTuner": ([f"step_{step}_{name}_0_64x64.png" for step in (50, 100) for name in ("ana", "beach")], [50, 100]),
    "OneTrainer": (
        [
            f"{place} - a photo of {name}/2026-01-01_12-00-0{place}-training-sample-{step}-1-0.jpg"
            for place, name in enumerate(["sks person", "a dog"])
            for step in (10, 20)
        ],
        [10, 20],
    ),
    "ai-toolkit": ([f"17672688000{n:02d}__{step:09d}_{n}.jpg" for step in (250, 500) for n in (0, 1)], [250, 500]),
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", FOLDERS)
def test_folders_of_every_trainer(here, config, photos, tool, capsys):
    names, steps = FOLDERS[tool]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    history = read_run(here / "out")
    assert [each.step for each in history.evaluations] == steps
    assert [len(each.images) for each in history.evaluations] == [2] * len(steps)
    assert all(each.scores["brightness"].missing == 0 for each in history.evaluations)
    assert f"named in the style of {tool.partition(',')[0]}" in capsys.readouterr().out


def test_the_run_is_an_ordinary_one(here, config, photos, capsys):
    names, _ = FOLDERS["kohya, steps"]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    assert main(["show", "out"]) == 0
    assert main(["report", "out", "-o", "page"]) == 0
    assert (here / "out/page/index.html").exists()
    assert list((here / "out/tensorboard").rglob("events*"))
    assert main(["render", "out", "--step", "100", "--cell", "p00-s0"]) == 2
    assert "its images come from another tool" in capsys.readouterr().err
    run = json.loads((here / "out/run.json").read_text())
    assert run["grid"]["sampler"] == ELSEWHERE
    assert not (here / "out/best").exists()


def test_prompts_can_be_named_in_the_trainers_order(here, config, photos):
    names, _ = FOLDERS["kohya, steps"]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out", "--prompts", "a photo of sks person", "a dog") == 0
    assert read_run(here / "out").grid.prompts == ("a photo of sks person", "a dog")


def test_a_prompt_that_the_trainers_list_repeats_keeps_the_places_of_the_others(here, config, photos):
    names = [kohya(f"{step:06d}", place, 42 + place) for step in (100, 200) for place in (0, 1, 2)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out", "--prompts", "ana", "ana", "a dog") == 0
    prompts = [image.cell.prompt for image in read_run(here / "out").evaluations[0].images if image.file]
    assert prompts == ["ana", "ana", "a dog"]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([kohya("000100", place) for place in (0, 1)], "found 1 prompt, but ana_000100_01_"),
        (["step_50_ana_0_64x64.png"], "cannot be assigned, because names such as step_50_ana_0_64x64.png do not hold"),
    ],
    ids=["too few", "names without places"],
)
def test_prompts_that_are_for_no_image_are_not_ignored_silently(here, config, photos, capsys, names, why):
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out", "--prompts", "ana") == 0
    assert f"note:     --prompts: {why}" in capsys.readouterr().out


def test_text_in_the_config_and_in_changes_is_taken_as_typed(here, config, photos):
    write_images(here / "samples", {kohya("000100", 0): 0}, photos)
    config.write_text(config.read_text().replace("prompts: [a photo of sks person,", "prompts: [no, 2026-11-28,"))
    change = "data.instance_prompt=photo: sks # 2"
    assert score(here / "samples", "--config", config, "-o", "out", "--set", change) == 0


def test_copies_do_not_count_as_draws_of_their_own(here, config, photos, capsys):
    names = [kohya(f"{step:06d}", place, 42 + place) for step in (100, 200) for place in (0, 1)]
    for folder in (here / "samples", here / "samples/backup"):
        write_images(folder, {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    assert [each.scores["brightness"].n for each in read_run(here / "out").evaluations] == [2, 2]
    said = capsys.readouterr().out
    assert "note:     left out copies of images of the same step, prompt, and seed: 4 files, such as " in said


def test_scores_among_the_images_are_not_scored_and_a_link_is_the_same_folder(here, config, photos, capsys):
    names = [kohya(f"{step:06d}", place, 42 + place) for step in (100, 200) for place in (0, 1)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    (here / "link").symlink_to("samples")
    for source in ("samples", "link"):
        assert score(here / source, "--config", config, "-o", "samples/out") == 0
    assert score(here / "samples", "--config", config, "-o", "samples/other") == 0
    assert "left out" not in capsys.readouterr().out
    assert [each.scores["brightness"].n for each in read_run(here / "samples/other").evaluations] == [2, 2]


def test_images_that_share_a_seed_are_one_draw_of_noise(here, config, photos):
    names = [kohya(f"{step:06d}", place, 42) for step in (100, 200) for place in (0, 1, 2)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    grid = read_run(here / "out").grid
    assert grid.seeds == (42,)
    assert len(grid.cells) == 3


def test_a_shared_seed_that_no_record_can_hold_is_numbered_anew(here, config, photos):
    names = [kohya(f"{step:06d}", place, 2**64 - 1) for step in (100, 200) for place in (0, 1)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    assert read_run(here / "out").grid.seeds == (0,)


def test_seeds_that_change_with_the_step_keep_their_cells(here, config, photos):
    names = [kohya(f"{step:06d}", place, 7 * step + place) for step in (100, 200) for place in (0, 1)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    history = read_run(here / "out")
    assert [[image.cell.id for image in each.images] for each in history.evaluations] == [["p00-s0", "p01-s1000"]] * 2


def seeds_by_step(folder):
    """For each step, the recorded cell of each image, and the seed in the name of the image that it holds."""
    history = read_run(folder)
    pixels = {path.name: Image.open(path).tobytes() for path in (folder.parent / "samples").iterdir()}
    found = {}
    for each in history.evaluations:
        held = [(image.cell.id, image.file) for image in each.images if image.file is not None]
        contents = {cell: Image.open(folder / file).tobytes() for cell, file in held}
        found[each.step] = {
            cell: {name.rpartition("_")[2].removesuffix(".png") for name in pixels if pixels[name] == content}
            for cell, content in contents.items()
        }
    return found


def write_seeds(folder, seeds_by_step, seed_of=lambda place, seed: seed):
    """Two prompts; every seed has its own image, the same one in every step."""
    for step, seeds in seeds_by_step.items():
        for place in (0, 1):
            for seed in seeds:
                path = folder / kohya(f"e{step:06d}", place, seed_of(place, seed))
                path.parent.mkdir(exist_ok=True)
                Image.new("RGB", (32, 32), (seed, 100 + place, seed_of(place, seed) % 256)).save(path)


@pytest.mark.parametrize("seed_of", [lambda place, seed: seed, lambda place, seed: 100 * place + seed])
def test_images_keep_the_cells_of_their_seeds_when_one_step_lacks_an_image(here, config, seed_of, capsys):
    write_seeds(here / "samples", {1: [40, 41, 42], 2: [40, 42], 3: [40, 41, 42]}, seed_of)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    found = seeds_by_step(here / "out")
    assert len(found[1]) == 6
    assert found[3] == found[1]
    assert found[2] == {cell: seeds for cell, seeds in found[1].items() if not {"41", "141"} & seeds}
    assert all(len(seeds) == 1 for seeds in found[1].values())
    assert "0.000 [0.000, 0.000], is not significant" in " ".join(capsys.readouterr().out.split())


def test_known_seeds_are_recorded(here, config):
    write_seeds(here / "samples", {1: [40, 42], 2: [40, 41]})
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    assert read_run(here / "out").grid.seeds == (40, 41, 42)


@pytest.mark.parametrize("seed_of", [lambda place, seed: seed, lambda place, seed: 100 * place + seed])
def test_a_later_step_is_placed_by_seed_too(here, config, seed_of, capsys):
    arguments = (here / "samples", "--config", config, "-o", "out")
    write_seeds(here / "samples", {1: [40, 41, 42]}, seed_of)
    assert score(*arguments) == 0
    write_seeds(here / "samples", {2: [41, 42, 43]}, seed_of)
    write_seeds(here / "samples", {3: [50]}, seed_of)
    capsys.readouterr()
    assert score(*arguments) == 0
    found = seeds_by_step(here / "out")
    assert list(found) == [1, 2]
    assert found[2] == {cell: seeds for cell, seeds in found[1].items() if not {"40", "140"} & seeds}
    assert len(found[2]) == 4
    said = capsys.readouterr().out
    assert f"step 2: left out {kohya('e000002', 0, seed_of(0, 43))}, {kohya('e000002', 1, seed_of(1, 43))}: the" in said
    assert "left out step 3: the grid has cells for other seeds" in said


def test_a_seed_that_returns_is_not_compared_with_others(here, config, capsys):
    arguments = (here / "samples", "--config", config, "-o", "out")
    write_seeds(here / "samples", {1: [40, 41], 2: [50, 51]})
    assert score(*arguments) == 0
    write_seeds(here / "samples", {3: [41, 60], 4: [70]})
    assert score(*arguments) == 0
    assert [each.step for each in read_run(here / "out").evaluations] == [1, 2, 4]
    assert "left out step 3: it has a seed of step 1" in capsys.readouterr().out


def test_images_without_seeds_do_not_take_the_cells_of_others(here, config, photos):
    write_images(here / "samples", {kohya("e000001", 0, seed): seed for seed in (40, 41)}, photos)
    write_images(here / "samples", {kohya("e000002", 0, seed): seed or 0 for seed in (None, 41)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    assert [[image.file is None for image in each.images] for each in read_run(here / "out").evaluations] == [
        [False, False, True],
        [True, False, False],
    ]


def test_a_damaged_layout_is_named(here, config, capsys):
    write_seeds(here / "samples", {1: [40]})
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    state = json.loads((here / "out/score.json").read_text())
    [name] = state["layouts"]
    state["layouts"][name]["rows"] = [["x"]]
    (here / "out/score.json").write_text(json.dumps(state))
    assert score(here / "samples", "--config", config, "-o", "out") == 2
    assert "score.json: damaged" in capsys.readouterr().err


def test_images_without_a_step_are_one_evaluation(here, config, photos, capsys):
    write_images(here / "samples", {f"ComfyUI_{place:05d}_.png": place for place in (1, 2, 3)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    [evaluation] = read_run(here / "out").evaluations
    assert evaluation.step == 1
    assert len(evaluation.images) == 3
    assert "found no step in names or metadata" in capsys.readouterr().out


def test_the_lora_in_comfyuis_graph_says_the_step_and_the_prompt(here, config, photos):
    (here / "samples").mkdir()
    for place, epoch in enumerate([1, 1, 2, 2]):
        nodes = {
            "3": {"inputs": {"seed": place % 2, "positive": ["6", 0]}},
            "6": {"inputs": {"text": "a photo of sks person"}},
            "10": {"inputs": {"lora_name": f"ana-{epoch:06d}.safetensors"}},
        }
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", json.dumps(nodes))
        Image.new("RGB", (32, 32), (10 * place, 0, 99)).save(here / f"samples/ComfyUI_{place:05d}_.png", pnginfo=info)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    history = read_run(here / "out")
    assert [each.step for each in history.evaluations] == [1, 2]
    assert history.grid.prompts == ("a photo of sks person",)


@pytest.mark.slow
def test_the_same_command_adds_new_steps(here, config, photos, capsys):
    def write(*steps, places=(0, 1)):
        names = [kohya(f"{step:06d}", place) for step in steps for place in places]
        write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)

    arguments = (here / "samples", "--config", config, "-o", "out")
    write(100, 200)
    assert score(*arguments) == 0
    times = [each.wall_time for each in read_run(here / "out").evaluations]
    write(150, 300)
    write(200, places=(2,))
    capsys.readouterr()
    assert score(*arguments) == 0
    found = read_run(here / "out").evaluations
    assert [each.step for each in found] == [100, 200, 300]
    assert [each.wall_time for each in found][:2] == times
    said = capsys.readouterr().out
    assert "left out step 150: it appeared after step 200 was scored" in said
    assert "step 200: left out 1 image that appeared after it was scored" in said


def test_what_lacks_an_image_is_missing_and_not_zero(here, config, photos):
    names = [kohya(f"{step:06d}", place) for step in (100, 200) for place in (0, 1)][:-1]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    assert score(here / "samples", "--config", config, "-o", "out") == 0
    last = read_run(here / "out").evaluations[-1]
    assert (last.scores["brightness"].n, last.scores["brightness"].missing) == (1, 1)


@pytest.mark.slow
def test_a_real_face_is_measured_and_the_best_step_named(here, photos, capsys):
    names = [kohya(f"{step:06d}", place, step + place) for step in (100, 200) for place in (0, 1, 2)]
    write_images(here / "samples", {name: place for place, name in enumerate(names)}, photos)
    sets = ("monitor.metrics={face_similarity: {recognizer: dlib}, copying: {}, aesthetic: null}",)
    assert score(here / "samples", "--references", photos, "--set", *sets, "-o", "out") == 0
    said = capsys.readouterr().out
    assert "by face_similarity, step 100 is best" in said
    assert "it is not significantly better than step 200" in said
    assert "verdict:  ALARM: copying is 1.000" in said  # they are the photos


def write_own_run(run_dir):
    """A fast run of our own with an image of the subject and a probe, whose last step is at full quality, too."""
    prompts = {"prompts": ["a photo of sks person"], "probe_prompts": ["a photo of a man"]}
    run = Recording(run_dir, PromptGrid(**prompts, images_per_prompt=1, images_per_probe=1, steps=8, quality="fast"))
    for step in (0, 100):
        run.add(step, 0.5)
    at_full_quality = [Image.new("RGB", (8, 8), "green") for _ in run.record.grid.cells]
    run.record.add_full_quality(run.record.evaluations[-1], at_full_quality)
    run.end()


@pytest.mark.parametrize("place", ["run", "run/images", "copied", "of an earlier version/images"])
def test_of_our_own_runs_only_images_of_the_subject_at_the_quality_of_evaluations_count(here, config, place, capsys):
    write_own_run(here / "run")
    shutil.copytree(here / "run/images", here / "copied")
    shutil.copytree(here / "run", here / "of an earlier version")
    for probe in (here / "of an earlier version").rglob("q*.png"):
        rewrite_without(probe, "finetune_monitor.probe")
    assert score(here / place, "--config", config, "-o", "out") == 0
    said = capsys.readouterr().out
    assert "left out all images whose prompts do not name the subject, such as " in said
    assert "of the same step, prompt, and seed: 1 file, such as " in said
    history = read_run(here / "out")
    assert [(each.step, each.scores["brightness"].n) for each in history.evaluations] == [(0, 1), (100, 1)]
    assert {image.cell.prompt for each in history.evaluations for image in each.images} == {"a photo of sks person"}


def rewrite_without(path, key):
    with Image.open(path) as image:
        texts = PngImagePlugin.PngInfo()
        assert key in image.text
        for name in image.text.keys() - {key}:
            texts.add_itxt(name, image.text[name])
        image.save(path, pnginfo=texts)
