"""The commands as a user types them: real images, the demo's CLIP, heads and reports on disk."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors import safe_open
from skimage.data import astronaut

from finetune_monitor.cli import main
from finetune_monitor.commands.aesthetic import KEPT
from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.aesthetic_head import read_head
from finetune_monitor.studies.aesthetic_head import embedding, scoring
from support import needs, preloaded
from support.heads import DATA as HEADS
from support.heads import METADATA, write_head
from support.places import DEMO, ROOT, SHARED

CLIP = DEMO / "clip"
RATED = 48
REAL = SHARED / "ratings"


def image(number: int) -> Image.Image:
    """A crop of the astronaut's photo, the more blurred the higher its number."""
    left, top = 7 * (number % 6), 5 * (number // 6)
    crop = Image.fromarray(astronaut()).crop((100 + left, top, 300 + left, 200 + top)).resize((96, 96))
    return crop.filter(ImageFilter.GaussianBlur(number / 6))


def votes(number: int) -> list[int]:
    """Twenty people's; sharper images get more."""
    center = 8 - number / 8
    shares = np.exp(-np.square(np.arange(1, 11) - center) / 4)
    return np.random.default_rng(number).multinomial(20, shares / shares.sum()).tolist()


@pytest.fixture(scope="module")
def ava(tmp_path_factory) -> Path:
    """AVA.txt, images/ and lists; one image is missing, one cut short, one the copy of another, one row again."""
    folder = tmp_path_factory.mktemp("ava")
    (folder / "images").mkdir()
    for number in range(RATED):
        image(number).save(folder / f"images/{1000 + number}.jpg", quality=95)
    rows = [f"{n + 1} {1000 + n} {' '.join(map(str, votes(n)))} 0 0 1" for n in range(RATED)]
    whole = (folder / "images/1000.jpg").read_bytes()
    (folder / "images/2001.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "images/2002.jpg").write_bytes(whole)
    rows += [f"{RATED + 1 + i} {name} 1 2 3 4 5 5 4 3 2 1 0 0 1" for i, name in enumerate((2000, 2001, 2002))]
    (folder / "AVA.txt").write_text("\n".join([*rows, rows[3], "damaged"]) + "\n")
    (folder / "test.jpgl").write_text("\n".join(str(1000 + n) for n in range(0, RATED, 4)) + "\n9999\n")
    return folder


def options(folder: Path, output: Path, *more: str) -> list[str]:
    words = ["aesthetic", "fit", str(folder / "AVA.txt"), "--images", str(folder / "images"), "--clip", str(CLIP)]
    return [*words, "--embeddings", str(folder / "embeddings"), "--workers", "0", "--output", str(output), *more]


@pytest.fixture(scope="module")
def fitted(ava) -> Path:
    """A head on AVA.txt with the official kind of test list."""
    more = ("--test", str(ava / "test.jpgl"), "--notice", "A test's head.", "--hidden", "32,16")
    assert main(options(ava, ava / "fitted", *more)) == 0
    return ava / "fitted"


def metadata(head: Path) -> dict[str, str]:
    with safe_open(head, "pt") as file:
        return file.metadata()


def predictions(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


# --- fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_head_says_what_it_was_made_with(fitted):
    found = metadata(fitted / "head.safetensors")
    assert json.loads(found["layers"]) == [96, 32, 16, 1]
    assert json.loads(found["scores"])["srcc"]["mean"] > 0.7
    given = {key: found[key] for key in ("activation", "normalization", "scale", "clip", "loss", "balance", "seed")}
    assert given == {
        "activation": "relu",
        "normalization": "l2",
        "scale": "0..10",
        "clip": str(CLIP),
        "loss": "mean",
        "balance": "lds",
        "seed": "0",
    }
    assert found["data"] == f"AVA.txt: {RATED} rated images"
    assert found["notice"] == "A test's head."
    assert {"clip_sha256", "data_sha256", "split_sha256", "made_by"} < set(found)


@pytest.mark.slow
def test_the_test_list_is_followed_and_everything_left_out_is_listed(fitted):
    assert set(predictions(fitted)) == {str(1000 + n) for n in range(0, RATED, 4)}
    with (fitted / "problems.csv").open(newline="") as file:
        found = [(row["kind"], row["image"]) for row in csv.DictReader(file)]
    assert sorted(found) == [
        ("bad row", "line 53"),
        ("duplicate image", "2002"),
        ("duplicate row", "1003"),
        ("missing image", "2000"),
        ("not rated", "9999"),
        ("unreadable image", "2001"),
    ]
    page = (fitted / "report.md").read_text()
    assert "missing image: 1" in page
    assert "problems" in page


@pytest.mark.slow
def test_the_report_holds_images_and_numbers_of_all_predictors(fitted):
    report = json.loads((fitted / "report.json").read_text())
    assert list(report["predictors"]) == ["head", "unbalanced", "constant"]
    rows = predictions(fitted).values()
    error = np.mean([abs(float(row["head"]) - float(row["rating"])) for row in rows])
    assert report["predictors"]["head"]["mae"]["value"] == pytest.approx(error, abs=1e-4)
    assert error < report["predictors"]["constant"]["mae"]["value"]
    for name in ("calibration", "histograms", "errors", "examples"):
        with Image.open(fitted / f"{name}.png") as image:
            assert image.width > 800


@pytest.mark.slow
def test_the_metric_scores_with_it_as_the_report_says(fitted, ava):
    metric = Aesthetic(clip=str(CLIP), head=fitted / "head.safetensors")
    rows = predictions(fitted)
    images = [Image.open(ava / f"images/{name}.jpg").convert("RGB") for name in rows]
    found = metric.score(images, ())["aesthetic"]
    assert found == pytest.approx([float(row["head"]) for row in rows.values()], abs=0.01)
    assert metric.bounds == (0, 10)
    assert metric.describe().notice == "A test's head."


@pytest.mark.slow
def test_a_second_fit_embeds_nothing_and_gives_the_same_file(fitted, ava, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("CLIP was loaded")

    monkeypatch.setattr(embedding, "ClipEncoder", refuse)
    more = ("--test", str(ava / "test.jpgl"), "--notice", "A test's head.", "--hidden", "32,16")
    assert main(options(ava, tmp_path / "again", *more)) == 0
    assert (tmp_path / "again/head.safetensors").read_bytes() == (fitted / "head.safetensors").read_bytes()
    out = capsys.readouterr().out
    assert f"report:       {tmp_path / 'again/report.md'}" in out
    assert "note:         A test's head." in out
    assert "left out" in out


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["resample", "none"])
def test_the_loss_on_the_histogram_and_other_balances(ava, tmp_path, balance):
    output = tmp_path / "head"
    assert main(options(ava, output, "--loss", "histogram", "--balance", balance, "--seed", "3", "--hidden", "16")) == 0
    head, found = read_head(output / "head.safetensors")
    assert head.grades == tuple(range(1, 11))
    assert (found["loss"], found["balance"], found["seed"]) == ("histogram", balance, "3")
    expected = ["head", "constant"] if balance == "none" else ["head", "unbalanced", "constant"]
    assert list(json.loads((output / "report.json").read_text())["predictors"]) == expected


@pytest.mark.slow
def test_cross_validation_scores_every_image_by_a_head_that_has_not_seen_it(ava, tmp_path):
    assert main(options(ava, tmp_path / "head", "--folds", "4", "--hidden", "0", "--balance", "none")) == 0
    assert len(predictions(tmp_path / "head")) == RATED
    found = metadata(tmp_path / "head/head.safetensors")
    assert found["measured"] == "4-fold cross-validation"
    train, validation = (int(part.split()[0]) for part in found["split"].split(", "))
    assert train + validation == RATED
    assert json.loads(found["scores"])["srcc"]["mean"] > 0.7


@pytest.mark.slow
def test_a_table_of_means_on_another_scale(ava, tmp_path):
    rows = [f"{1000 + n}.jpg,{5 - n / 12:.2f}" for n in range(RATED)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mean", *rows]))
    words = options(ava, tmp_path / "head", "--scale", "1", "5", "--hidden", "0")
    words[2] = str(tmp_path / "ratings.csv")
    assert main(words) == 0
    assert json.loads(metadata(tmp_path / "head/head.safetensors")["layers"]) == [96, 1]
    assert Aesthetic(clip=str(CLIP), head=tmp_path / "head/head.safetensors").bounds == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--output": "fitted"}, "found head.safetensors, which would be overwritten"),
        ({"--output": "AVA.txt/head"}, "cannot create the folder (Not a directory)"),
        ({"--train": "nowhere.jpgl"}, "nowhere.jpgl: No such file"),
        ({"--train": "test.jpgl", "--test": "test.jpgl"}, "--test and --train: "),
        ({"--test": "AVA.txt"}, "names is a rated image"),
        ({"--device": "cuda:1"}, "--device: found cuda:1, but torch can use 0 GPUs"),
        ({"--device": "cpux"}, "--device: found cpux, expected cpu, cuda, or cuda:1"),
        ({"--images": "nowhere"}, "nowhere: no such folder"),
        ({"--images": "AVA.txt"}, "AVA.txt: found a file; expected the folder with the rated images"),
        ({"--test": "nowhere.jpgl"}, "nowhere.jpgl: No such file"),
        ({"--folds": "4", "--test": "test.jpgl"}, "--folds: found lists of images too"),
        ({"--folds": "1"}, "--folds: found 1, expected 2 or more"),
        ({"--scale": "10 0"}, "--scale: found 10 0, expected"),
        ({"--scale": "0 5"}, "use --scale LOW HIGH"),
        (
            {"--clip": "ViT-L-15"},
            "clip: found 'ViT-L-15', expected a model name of open_clip or a folder; did you mean",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_embedded(
    fitted, ava, tmp_path, monkeypatch, capsys, change, reason
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words = options(ava, tmp_path / "head", "--embeddings", str(tmp_path / "embeddings"))
    for name, value in change.items():
        path = name in ("--output", "--images", "--test", "--train")
        words += [name, *([str(ava / value)] if path else value.split())]
    assert main(words) == 2
    error = capsys.readouterr().err.split("finetune-monitor: ")[-1]
    assert reason in error
    assert not (tmp_path / "head/head.safetensors").exists()
    assert not (tmp_path / "embeddings").exists()


@pytest.mark.parametrize("grades", [(0, 1, 10), (1, 2, 4)])
def test_votes_for_uneven_grades_have_no_earth_movers_distance(ava, tmp_path, capsys, grades):
    rows = [f"{1000 + n},3,4,5" for n in range(RATED)]
    (tmp_path / "ratings.csv").write_text("\n".join([f"image,{','.join(map(str, grades))}", *rows]))
    words = options(ava, tmp_path / "head", "--loss", "histogram")
    words[2] = str(tmp_path / "ratings.csv")
    assert main(words) == 2
    assert "needs equal steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--hidden", "8,-1"],
        ["--hidden", "a"],
        ["--seed", "-1"],
        ["--seed", "99999999999"],
        ["--workers", "x"],
        ["--loss", "other"],
        ["--balance", "other"],
    ],
)
def test_choices_that_do_not_exist_are_refused(ava, tmp_path, words, capsys):
    with pytest.raises(SystemExit):
        main(options(ava, tmp_path / "head", *words))
    assert words[0] in capsys.readouterr().err


def test_votes_are_asked_for_before_anything_is_embedded(ava, tmp_path, capsys):
    (tmp_path / "ratings.csv").write_text("image,mean\n1000,5\n1001,6\n1002,7\n")
    words = options(ava, tmp_path / "head", "--loss", "histogram", "--embeddings", str(tmp_path / "embeddings"))
    words[2] = str(tmp_path / "ratings.csv")
    assert main(words) == 2
    assert "the histogram loss needs votes per grade" in capsys.readouterr().err
    assert not (tmp_path / "embeddings").exists()


@pytest.mark.slow
def test_ctrl_c_while_embedding_ends_in_one_line_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    names = [f"{number}.png" for number in range(400)]
    for number, name in enumerate(names):
        Image.new("RGB", (64, 64), (number % 256, number // 256, 7)).save(tmp_path / "images" / name)
    rows = [f"{name},{1 + index % 8}" for index, name in enumerate(names)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,rating", *rows]))
    words = ["aesthetic", "fit", "ratings.csv", "--images", "images", "--clip", str(CLIP), "--workers", "0"]
    words += ["--embeddings", "embeddings", "--output", "head", "--balance", "none", "--hidden", "0"]
    process = start(tmp_path, words, tmp_path / "first.log")
    wait_for(process, lambda: embedded_so_far(tmp_path / "first.log") > 0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    error = (tmp_path / "first.log").read_text()
    assert error.splitlines()[-1] == f"finetune-monitor: interrupted{KEPT}"
    assert "Traceback" not in error
    done = embedded_so_far(tmp_path / "first.log")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert (tmp_path / "head/report.md").exists()
    assert int(COUNT.search(capsys.readouterr().err)[1]) >= done > 0  # where the second run began


COUNT = re.compile(r"embedding:[^\r]*?(\d+)/400")


def embedded_so_far(log: Path) -> int:
    return int((COUNT.findall(log.read_text()) or [0])[-1])


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(fitted, tmp_path):
    for number in range(40):
        image(number % 8).save(tmp_path / f"{number}.png")
    command = f"{preloaded.python()} -m finetune_monitor.cli aesthetic score {fitted}/head.safetensors {tmp_path}"
    done = subprocess.run(
        f"{command} | head -1", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout == "image,score\n"
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_report_that_cannot_be_drawn_costs_no_head(ava, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("finetune_monitor.studies.aesthetic_head.figures.errors", fail)
    with pytest.raises(OSError, match="no space"):
        main(options(ava, tmp_path / "head", "--balance", "none", "--hidden", "0"))
    assert read_head(tmp_path / "head/head.safetensors")[0].widths == [96, 1]


def start(folder: Path, words: list[str], log: Path) -> subprocess.Popen:
    command = [preloaded.python(), "-m", "finetune_monitor.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=file, stdout=subprocess.DEVNULL)


def wait_for(process: subprocess.Popen, condition) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


# --- eval and score -----------------------------------------------------------------------------------------------


def evaluated(fitted: Path, ava: Path, output: Path, *more: str) -> list[str]:
    words = ["aesthetic", "eval", str(fitted / "head.safetensors"), str(ava / "AVA.txt"), "--workers", "0"]
    words += ["--images", str(ava / "images"), "--embeddings", str(ava / "embeddings"), "--output", str(output)]
    return [*words, *more]


@pytest.mark.slow
def test_eval_measures_what_fit_said_and_takes_the_heads_own_clip(fitted, ava, tmp_path):
    assert main(evaluated(fitted, ava, tmp_path, "--only", str(ava / "test.jpgl"))) == 0
    ours, theirs = predictions(tmp_path), predictions(fitted)
    assert {name: row["head"] for name, row in ours.items()} == {name: row["head"] for name, row in theirs.items()}
    page = (tmp_path / "report.md").read_text()
    assert "A test's head." in page
    assert "are optimistic, unless the list names none of them" in page
    assert not (tmp_path / "head.safetensors").exists()


@pytest.mark.slow
def test_eval_on_the_very_images_of_the_fit_says_so(fitted, ava, tmp_path):
    assert main(evaluated(fitted, ava, tmp_path)) == 0
    assert "these numbers are optimistic.\n" in (tmp_path / "report.md").read_text()
    assert len(predictions(tmp_path)) == RATED


@pytest.mark.slow
def test_eval_overwrites_no_report_and_embeds_no_other_image(fitted, ava, tmp_path, capsys):
    page = (fitted / "report.md").read_bytes()
    assert main(evaluated(fitted, ava, fitted)) == 2
    assert "found head.safetensors, which would be overwritten" in capsys.readouterr().err
    assert (fitted / "report.md").read_bytes() == page
    (tmp_path / "list").write_text("1003\n1005\n1009\n")
    words = evaluated(fitted, ava, tmp_path / "out", "--only", str(tmp_path / "list"))
    assert main([*words, "--embeddings", str(tmp_path / "embeddings")]) == 0
    assert set(predictions(tmp_path / "out")) == {"1003", "1005", "1009"}
    assert "3/3" in capsys.readouterr().err
    assert main(words) == 2
    assert "found report.json, which would be overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_eval_takes_the_heads_scale_and_says_where_the_ratings_have_another(ava, tmp_path):
    rows = [f"{1000 + n},{5 - n / 12}" for n in range(RATED)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mean", *rows]))
    words = options(ava, tmp_path / "head", "--scale", "1", "5", "--hidden", "0")
    words[2] = str(tmp_path / "ratings.csv")
    assert main(words) == 0
    for name, more, said in (("own", [], False), ("other", ["--scale", "0", "10"], True)):
        words = evaluated(tmp_path / "head", ava, tmp_path / name, *more)
        words[3] = str(tmp_path / "ratings.csv")
        assert main(words) == 0
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["scale"] == ([0, 10] if said else [1, 5])
        assert any("only the correlations are meaningful" in note for note in report["notes"]) == said


@pytest.mark.parametrize(
    ("metadata", "words", "expected"),
    [
        ({"clip": "ViT-B-32-quickgelu/openai"}, [], ("ViT-B-32-quickgelu", "openai")),
        ({"clip": "ViT-B-32-quickgelu/openai"}, ["--clip", "ViT-B-32-quickgelu"], ("ViT-B-32-quickgelu", "openai")),
        ({"clip": "ViT-B-32-quickgelu/openai"}, ["--clip", "ViT-B-16"], ("ViT-B-16", None)),
        ({}, ["--clip", "ViT-B-16", "--pretrained", "openai"], ("ViT-B-16", "openai")),
        ({"clip": "ViT-B-32-quickgelu/openai"}, ["--pretrained", "laion2b"], "found laion2b without --clip"),
        (
            {"clip": "gone/clip"},
            [],
            "fitted on the CLIP in the folder gone/clip, which is missing here; give it with --clip",
        ),
    ],
)
def test_the_clip_is_the_one_named_or_the_heads_own(tmp_path, monkeypatch, capsys, metadata, words, expected):
    taken = []
    monkeypatch.setattr(scoring, "print_scores", lambda images, head, *clip_and_device: taken.append(clip_and_device))
    head = write_head(tmp_path / "head.safetensors", metadata={**METADATA, **metadata})
    status = main(["aesthetic", "score", str(head), "image", "--device", "cpu", *words])
    if isinstance(expected, tuple):
        assert (status, taken) == (0, [(*expected, "cpu")])
    else:
        assert (status, taken) == (2, [])
        assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_eval_refuses_another_clip_before_anything_is_embedded(fitted, ava, tiny_clip, tmp_path, capsys):
    embeddings = str(tmp_path / "embeddings")
    assert main(evaluated(fitted, ava, tmp_path, "--clip", str(tiny_clip), "--embeddings", embeddings)) == 2
    assert "the head takes embeddings of width 96" in capsys.readouterr().err
    assert not Path(embeddings).exists()


@pytest.mark.slow
def test_score_prints_a_row_an_image_and_says_what_cannot_be_read(fitted, ava, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    image(3).save(tmp_path / "more/b.png")
    (tmp_path / "more/a").mkdir()
    image(40).save(tmp_path / "more/a/0.png")
    broken, missing = ava / "images/2001.jpg", tmp_path / "nowhere.png"
    words = ["aesthetic", "score", str(fitted / "head.safetensors"), str(tmp_path / "more"), str(broken), str(missing)]
    assert main(words) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(captured.out.splitlines()))
    assert [row["image"] for row in rows] == [
        str(tmp_path / "more/a/0.png"),
        str(tmp_path / "more/b.png"),
        str(broken),
        str(missing),
    ]
    assert float(rows[0]["score"]) < float(rows[1]["score"])
    assert [row["score"] for row in rows[2:]] == ["", ""]
    assert "2001.jpg: the image is damaged" in captured.err
    assert "A test's head." in captured.err
    assert "nowhere.png: no such file" in captured.err
    assert main([*words[:3], str(broken)]) == 2


def test_a_head_that_does_not_name_its_clip_asks_for_it(tmp_path, tiny_clip, capsys):
    head = write_head(tmp_path / "head.safetensors")
    photo = DEMO / "photos/astronaut/01.png"
    assert main(["aesthetic", "score", str(head), str(photo)]) == 2
    assert "does not state which CLIP it was fitted on; give it with --clip" in capsys.readouterr().err
    assert main(["aesthetic", "score", str(head), str(photo), "--clip", str(tiny_clip)]) == 0


@needs.shared("aesthetic")
def test_a_public_head_names_its_clip_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(HEADS / "laion"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["aesthetic", "score", "sa_0_4_vit_b_32_linear", str(DEMO / "photos/astronaut")]) == 2
    assert "clip ViT-B-32-quickgelu: weights missing" in capsys.readouterr().err


# --- real images, real ratings ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs.shared("ratings")
def test_real_ratings_cross_validated_beside_a_constant_and_nima(tmp_path):
    ratings: dict[str, dict[str, int]] = {}
    with (REAL / "avt_2022_per_rater.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["question"] == "image_appeal":
                ratings.setdefault(row["image"], {})[row["rater"]] = int(row["rating"])
    with (tmp_path / "appeal.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *range(1, 6)])
        for name, given in ratings.items():
            writer.writerow([name, *(Counter(given.values())[grade] for grade in range(1, 6))])
    words = ["aesthetic", "fit", str(tmp_path / "appeal.csv"), "--images", str(REAL / "images"), "--clip", str(CLIP)]
    words += ["--embeddings", str(tmp_path / "embeddings"), "--output", str(tmp_path / "head"), "--workers", "0"]
    assert (
        main(
            [*words, "--scale", "1", "5", "--folds", "5", "--loss", "histogram", "--balance", "none", "--hidden", "16"]
        )
        == 0
    )
    report = json.loads((tmp_path / "head/report.json").read_text())
    assert report["images"] == 145
    assert report["facts"]["left out"].startswith("missing image: 1")
    head, constant = report["predictors"]["head"], report["predictors"]["constant"]
    # The demo's CLIP knows portraits of 64 pixels: no better than the constant is what can be asked of it here.
    assert head["mae"]["value"] < constant["mae"]["high"]
    assert -0.1 < head["srcc"]["value"] < 0.4
    assert head["srcc"]["low"] < head["srcc"]["value"] < head["srcc"]["high"]
    assert torch.isfinite(read_head(tmp_path / "head/head.safetensors")[0](torch.zeros(1, 96))).all()
