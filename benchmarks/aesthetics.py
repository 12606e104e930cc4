"""Measure the cost of fitting an aesthetic head, the effect of balancing, and the demo's CLIP on real ratings.

python benchmarks/aesthetics.py ava
python benchmarks/aesthetics.py ratings --data DIR

`ava` does not need AVA: it writes as many tiny images as AVA has, votes with AVA's own histogram of mean ratings, and
embeddings that are about as informative as CLIP's. The command itself is the real one. `ratings` needs the 145 images
of Göring et al. 2023 with the ratings of 27 people (`avt_2022_per_rater.csv`, `avt_2022_nima.csv`, `images/`).
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import ROOT, publish_section, table
from tqdm import tqdm, trange

from finetune_monitor.models.clip import resolve_clip
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.stats.statistics import interval, mae, plcc, srcc
from finetune_monitor.studies.aesthetic_head.embedding_store import EmbeddingStore, Seen, file_state
from models import CACHE, DEMO, clip_folder

RESULTS = Path(__file__).with_name("AESTHETICS.md")
PREAMBLE = """# Aesthetic heads, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

AVA_MEANS = (2, 28, 116, 434, 1576, 5409, 12534, 18977, 16626, 9292, 3449, 778, 122, 7, 1)
"""Images of AVA by their mean rating, in bins of half a point from 1.5: 69,351 of its 255,530."""

VOTES, VOTES_SPREAD = 211, 1.43
"""Votes per image, and the standard deviation of an image's votes."""

WIDTH = 768
CORRELATION = 0.76
"""Correlation of what the embeddings encode with the mean rating: a fit reaches about the result of LAION's linear head
on AVA (SRCC 0.665, PLCC 0.666).
"""

PIXEL = zlib.compress(b"\0\x80\x80\x80")


class Run(NamedTuple):
    """A command's wall time, the peak memory of its process, and the report that it wrote."""

    seconds: float
    resident: float
    report: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ava", "ratings"])
    parser.add_argument("--images", type=int, default=250_000, help="of the synthetic AVA")
    parser.add_argument("--data", type=Path, help="folder with the real ratings")
    options = parser.parse_args()
    if options.what == "ava":
        measure_ava(options.images)
    elif options.data is None:
        parser.error("ratings needs --data DIR")
    else:
        measure_ratings(options.data)


# --- a synthetic AVA ----------------------------------------------------------------------------------------------


def measure_ava(count: int) -> None:
    folder = CACHE / f"ava-{count}"
    clip = clip_folder("sd15")
    if not (folder / "AVA.txt").exists():
        write_ava(folder, count, clip)
    base = [str(folder / "AVA.txt"), "--images", str(folder / "images"), "--embeddings", str(folder / "embeddings")]
    base += ["--clip", str(clip)]
    runs = {
        (loss, balance): fit([*base, "--loss", loss, "--balance", balance], folder / "fit")
        for loss, balance in (("mean", "lds"), ("mean", "resample"), ("histogram", "lds"))
    }
    first = runs["mean", "lds"]
    notes = [
        f"- The entire command, with two heads and the report, takes {first.seconds:.0f} s and a peak memory of "
        f"{first.resident:.2f} GiB for {count:,} images with stored embeddings (width {WIDTH}). Of these, "
        f"{first.report['images']:,} are test images.",
        "- Images and embeddings are synthetic, so SRCC and PLCC reflect only the simulation, not AVA or CLIP. The "
        "histogram of mean ratings is AVA's, and it determines how balancing moves errors between bins.",
        f"- The loss is on the mean rating (mean), or the earth mover's distance of the votes (histogram: {VOTES} "
        "votes per image).",
    ]
    publish_section(
        RESULTS,
        PREAMBLE,
        "ava",
        "Balancing on a synthetic AVA",
        [times(runs), overall(runs), by_rating(runs), "\n".join(notes)],
    )


def write_ava(folder: Path, count: int, clip: Path) -> None:
    """Write a tiny image for each line, its embedding in the store, and AVA.txt last, as a sign of completeness."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    bins = random.choice(len(AVA_MEANS), count, p=np.array(AVA_MEANS) / sum(AVA_MEANS))
    votes = draw_votes(1.5 + 0.5 * (bins + random.random(count)), random)
    means = votes @ np.arange(1, 11) / votes.sum(1)
    with EmbeddingStore(folder / "embeddings", resolve_clip(str(clip), None)).writing() as writer:
        for number, row in enumerate(tqdm(embeddings(means, random), total=count, desc="synthetic AVA")):
            path = folder / f"images/{number}.jpg"
            content = tiny_image(number)
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            writer.add([digest], [row])
            writer.note(path, file_state(path), Seen(digest))
    lines = (f"{n + 1} {n} {' '.join(map(str, row))} 0 0 1" for n, row in enumerate(votes.tolist()))
    (folder / "AVA.txt").write_text("\n".join(lines) + "\n")


def draw_votes(means: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Votes for 1 to 10 of each image with the given expected means: rounded normal ratings, clipped at the ends."""
    votes = np.empty((len(means), 10), dtype=np.int64)
    for start in trange(0, len(means), 10_000, desc="votes"):
        part = slice(start, start + 10_000)
        drawn = random.normal(means[part, None], VOTES_SPREAD, (len(means[part]), VOTES))
        grades = np.clip(np.rint(drawn), 1, 10).astype(np.int64)
        votes[part] = (grades[..., None] == np.arange(1, 11)).sum(1)
    return votes


def embeddings(means: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Unit rows: a few directions encode the rating, not all of them linearly, and the others are noise."""
    known = CORRELATION * (means - means.mean()) / means.std()
    known += np.sqrt(1 - CORRELATION**2) * random.standard_normal(len(means))
    center, straight, good, bad = random.standard_normal((4, WIDTH)) / np.sqrt(WIDTH)
    for part in np.array_split(known, len(known) // 8192 + 1):
        x = part[:, None]
        rows = 55 * center + 2 * x * straight + 1.5 * np.maximum(x, 0) * good + 1.5 * np.minimum(x, 0) * bad
        rows += random.standard_normal(rows.shape)
        yield from (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def tiny_image(number: int) -> bytes:
    """One gray pixel as PNG, with a text chunk that makes the file unique."""
    header = b"\0\0\0\1\0\0\0\1\x08\2\0\0\0"
    parts = [(b"IHDR", header), (b"tEXt", b"number\0%d" % number), (b"IDAT", PIXEL), (b"IEND", b"")]
    chunks = (
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def fit(arguments: Sequence[str], output: Path) -> Run:
    """Run `finetune-monitor aesthetic fit` in its own process."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "finetune_monitor.cli", "aesthetic", "fit", *arguments, "--output", str(output)]
    print(" ".join(command[3:]), file=sys.stderr)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit("the fit failed")
    return Run(seconds, usage.ru_maxrss / 2**20, json.loads((output / "report.json").read_text()))


def columns(runs: Mapping[tuple[str, str], Run]) -> dict[str, tuple[Run, str]]:
    """Every head that was fitted, by its name in the tables: its run and its name in the report."""
    found = {}
    for (loss, balance), run in runs.items():
        found.setdefault(f"{loss}, none", (run, "unbalanced"))
        found[f"{loss}, {balance}"] = (run, "head")
    return found


def times(runs: Mapping[tuple[str, str], Run]) -> str:
    rows = [
        (f"{loss}, {balance} and none", f"{run.seconds:.0f}", f"{run.resident:.2f}")
        for (loss, balance), run in runs.items()
    ]
    return table(("fit", "s", "peak GiB"), rows)


def overall(runs: Mapping[tuple[str, str], Run]) -> str:
    rows = []
    for name, (run, key) in columns(runs).items():
        found = run.report["predictors"][key]
        rows.append((name, *(shown(found[which]) for which in ("srcc", "plcc", "mae", "outer"))))
    outer = first_report(runs)["outer"]
    far = f"scores below {outer['low']:.2f} or above {outer['high']:.2f}"
    constant = first_report(runs)["predictors"]["constant"]
    rows.append(("constant", "-", "-", shown(constant["mae"]), "0"))
    rows.append(("(the ratings)", "", "", "", f"{outer['share_of_ratings']:.3f}"))
    return table(("loss, balance", "SRCC", "PLCC", "MAE", far), rows)


def by_rating(runs: Mapping[tuple[str, str], Run]) -> str:
    """MAE in bins of the rating."""
    heads = columns(runs)
    bins = {name: {b["low"]: b for b in run.report["error_by_rating"][key]} for name, (run, key) in heads.items()}
    first = next(iter(bins.values()))
    rows = [
        (f"{low:g} to {b['high']:g}", f"{b['n']:,}", *(shown(bins[name][low]["mean"]) for name in bins))
        for low, b in first.items()
    ]
    return "MAE by mean rating:\n\n" + table(("mean rating", "n", *bins), rows)


def first_report(runs: Mapping[tuple[str, str], Run]) -> dict[str, Any]:
    return next(iter(runs.values())).report


def shown(found: Mapping[str, Any]) -> str:
    """A value with its interval, if it has one."""
    if found["value"] is None:
        return "-"
    if found["low"] is None or found["n"] < 2:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


# --- real images, real ratings ----------------------------------------------------------------------------------


def measure_ratings(data: Path) -> None:
    folder = CACHE / "ratings"
    folder.mkdir(parents=True, exist_ok=True)
    write_votes(data / "avt_2022_per_rater.csv", folder / "appeal.csv")
    base = [str(folder / "appeal.csv"), "--images", str(data / "images"), "--scale", "1", "5", "--folds", "5"]
    base += ["--clip", str(DEMO / "clip"), "--embeddings", str(folder / "embeddings")]
    rows = []
    for loss in ("mean", "histogram"):
        run = fit([*base, "--loss", loss], folder / "fit")
        for key, name in (
            ("head", f"head, loss on the {loss}, lds"),
            ("unbalanced", f"head, loss on the {loss}, none"),
        ):
            found = run.report["predictors"][key]
            rows.append((name, *(shown(found[which]) for which in ("srcc", "plcc", "mae"))))
    rows.append(("constant", "-", "-", shown(run.report["predictors"]["constant"]["mae"])))
    rows.append(("NIMA, as published", *nima(data / "avt_2022_nima.csv", folder / "fit/predictions.csv")))
    notes = [
        f"- {run.report['images']} images, 135 of them generated, whose image appeal was rated from 1 to 5 by 27 "
        "people (Göring et al. 2023, IEEE Access). Heads are evaluated by 5-fold cross-validation. The demo's CLIP "
        "was trained on 64 px portraits and is not made for such images.",
        "- NIMA's scores, from 1 to 10, came with the data. Its MAE is that of a straight line fitted to the other "
        "images, leaving each image out in turn.",
    ]
    publish_section(
        RESULTS,
        PREAMBLE,
        "ratings",
        "The demo's CLIP on real ratings of generated images",
        [table(("", "SRCC", "PLCC", "MAE"), rows), "\n".join(notes)],
    )


def write_votes(source: Path, target: Path) -> None:
    """One row per image with its votes for 1 to 5; if a rater rated an image twice, the last rating counts."""
    ratings: dict[str, dict[str, int]] = defaultdict(dict)
    with source.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["question"] == "image_appeal":
                ratings[row["image"]][row["rater"]] = int(row["rating"])
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *range(1, 6)])
        for image, given in ratings.items():
            votes = Counter(given.values())
            writer.writerow([image, *(votes[grade] for grade in range(1, 6))])


def nima(scores: Path, predictions: Path) -> tuple[str, str, str]:
    """NIMA's SRCC, PLCC, and MAE on the same images that the heads were measured on."""
    with scores.open(newline="") as file:
        said = {row["image"]: float(row["nima"]) for row in csv.DictReader(file)}
    with predictions.open(newline="") as file:
        rated = {row["name"]: float(row["rating"]) for row in csv.DictReader(file) if row["name"] in said}
    x, y = np.array([said[name] for name in rated]), np.array(list(rated.values()))
    line = np.array([leave_one_out(x, y, index) for index in range(len(x))])
    found: list[Estimate] = [interval(srcc, x, y), interval(plcc, x, y), interval(mae, line, y)]
    first, second, third = ({"value": f.mean, "low": f.low, "high": f.high, "n": f.n} for f in found)
    return shown(first), shown(second), shown(third)


def leave_one_out(x: np.ndarray, y: np.ndarray, index: int) -> float:
    """The prediction for each point by the line through the others."""
    others = np.arange(len(x)) != index
    slope, intercept = np.polyfit(x[others], y[others], 1)
    return slope * x[index] + intercept


if __name__ == "__main__":
    main()
