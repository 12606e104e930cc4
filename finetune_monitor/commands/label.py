"""The commands `finetune-monitor label plan|serve|export`: their options, and what they print."""

import argparse
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import counted, visible
from finetune_monitor.commands.options import port_number, share, whole_number
from finetune_monitor.studies.labeling.settings import FIRST_PORT, LONGEST_NAME, PER_PERSON, REPEATS, SEED

if TYPE_CHECKING:
    from finetune_monitor.studies.labeling.images import Gallery
    from finetune_monitor.studies.labeling.storage import RatingStore
    from finetune_monitor.studies.labeling.tasks import Task

ANY = "0.0.0.0"
"""The host that means all addresses of this machine."""

LARGE = 100_000_000
"""In bytes; a larger page is hard to send and slow to open."""


def add_label(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `label` with its three commands."""
    parser = commands.add_parser("label", help="ask people to rate images from 1 to 5")
    kinds = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_plan(kinds.add_parser("plan", help="choose the images to rate and write a plan"))
    _add_serve(kinds.add_parser("serve", help="serve a plan's labeling page to browsers on this machine"))
    _add_export(kinds.add_parser("export", help="write the ratings as CSV, or the page as a single HTML file"))


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="run directories, or folders of images")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder for the plan")
    parser.add_argument(
        "--per-person",
        type=whole_number,
        default=PER_PERSON,
        metavar="N",
        help=f"images per person, half for each question; default: {PER_PERSON}",
    )
    parser.add_argument(
        "--repeats",
        type=share,
        default=REPEATS,
        metavar="X",
        help=f"share of images that are shown twice; default: {REPEATS:g}",
    )
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=SEED,
        metavar="N",
        help=f"seed for choosing and ordering the images; default: {SEED}",
    )
    parser.add_argument(
        "--references",
        type=_reference,
        action="append",
        default=[],
        metavar="PERSON=FOLDER",
        help="a person's photos, if no run names them; repeat the option for each person",
    )
    parser.set_defaults(run=_plan)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a plan's folder; the ratings are saved in it")
    parser.add_argument(
        "--port",
        type=port_number,
        metavar="N",
        help=f"0 for any free port; default: the folder's last port, initially {FIRST_PORT}. A browser that saved "
        "answers while the server was down sends them only to the same port",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help=f"address of this machine, for labelers elsewhere; {ANY} for all addresses; default: localhost only",
    )
    parser.add_argument(
        "--labeler",
        type=_labeler,
        action="append",
        default=[],
        metavar="NAME",
        help="a labeler who gets their own link; all answers from it are saved under this name. Repeat the option "
        "for each labeler; no other link opens the page",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser on this machine")
    parser.set_defaults(run=_serve)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a plan's folder")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="a new .csv file for the ratings, or .html file for the page",
    )
    parser.add_argument("--metric", metavar="NAME", help="export only the question for this metric")
    parser.set_defaults(run=_export)


def _labeler(text: str) -> str:
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise argparse.ArgumentTypeError(f"found {text[:80]!r}, expected a name of 1 to {LONGEST_NAME} characters")
    return name


def _reference(text: str) -> tuple[str, Path]:
    """Person and folder, split at the last "=" before a folder, since names may contain "="; otherwise at the first."""
    parts = text.split("=")
    splits = [("=".join(parts[:place]), "=".join(parts[place:])) for place in range(1, len(parts))]
    pairs = [(person, folder) for person, folder in splits if person and folder]
    if not pairs:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected PERSON=FOLDER")
    person, folder = next((pair for pair in reversed(pairs) if os.path.isdir(pair[1])), pairs[0])
    return person, Path(folder)


def _plan(chosen: argparse.Namespace) -> None:
    from finetune_monitor.studies.labeling.plan import draw_plan

    names = [person for person, _ in chosen.references]
    twice = sorted({person for person in names if names.count(person) > 1})
    if twice:
        raise UserError(f"--references: found {', '.join(twice)} more than once; give each person one folder")
    references = dict(chosen.references)
    drawn = draw_plan(chosen.sources, chosen.output, chosen.per_person, chosen.repeats, chosen.seed, references)
    _print_counts(drawn.counts)
    metrics = dict.fromkeys(metric for _, metric in drawn.counts)
    print(f"asked: {_asked({name: [task for task in drawn.plan.tasks if task.metric == name] for name in metrics})}")
    for note in drawn.notes:
        print(f"note:  {note}")
    print(f"plan:  {chosen.output}")
    print(f"next:  finetune-monitor label serve {shlex.quote(str(chosen.output))}")


def _print_counts(counts: dict[tuple[str, str], int]) -> None:
    """Print the number of images per person and metric, not counting repeats."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from finetune_monitor.base.text import printable

    persons, metrics = (list(dict.fromkeys(names)) for names in zip(*counts, strict=True))
    table = Table("person", *(Column(escape(metric), justify="right") for metric in metrics))
    for person in persons:
        table.add_row(
            escape(printable(person)),
            *(str(counts.get((person, metric), 0)) for metric in metrics),
        )
    if len(persons) > 1:
        sums = [sum(counts.get((person, metric), 0) for person in persons) for metric in metrics]
        table.add_section()
        table.add_row("all", *map(str, sums))
    Console().print(table)


def _asked(tasks: Mapping[str, Sequence["Task"]]) -> str:
    """The number of images that each labeler is shown for each metric."""
    return "; ".join(f"{metric}, {_images(own)}" for metric, own in tasks.items())


def _images(tasks: Sequence["Task"]) -> str:
    repeats = sum(task.repeat_of is not None for task in tasks)
    remark = f", {repeats} of them {'a repeat' if repeats == 1 else 'repeats'}" if repeats else ""
    return counted(len(tasks), "image") + remark


def _serve(chosen: argparse.Namespace) -> None:
    from finetune_monitor.serving import addresses
    from finetune_monitor.serving.server import open_in_browser, serve
    from finetune_monitor.studies.labeling.images import open_gallery
    from finetune_monitor.studies.labeling.serving import BODY, make_app
    from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore

    gallery = open_gallery(chosen.folder)
    _warn(gallery)
    store = RatingStore(chosen.folder / RATINGS)
    store.create()
    port = addresses.last_port(chosen.folder, FIRST_PORT) if chosen.port is None else chosen.port
    with addresses.listen(chosen.host, port, f"--host {chosen.host} --port {port}") as listening:
        address, port = listening.getsockname()
        access = addresses.access_to(address, chosen.host, chosen.folder, chosen.labeler)
        addresses.remember_port(chosen.folder, port)
        app = make_app(gallery, store, access)
        links = addresses.links_to(address, port, chosen.host, access)
        print(f"asked:  {_asked(gallery.by_metric)}")
        print(f"so far: {_rated(store)}")
        for labeler, link in links.items():
            print(f"open:   {link}{f' (only for {visible(labeler)})' if labeler else ''}")
        print("stop:   Ctrl-C; every answer is saved immediately", flush=True)
        if chosen.open:
            open_in_browser(next(iter(links.values())))
        serve(app, listening, BODY)
    print(f"\nsaved:  {_rated(store)}, all in {store.file}")
    print(f"next:   finetune-monitor agree {shlex.quote(str(chosen.folder))} -o agreement")


def _warn(gallery: "Gallery") -> None:
    if gallery.left_out:
        print(f"finetune-monitor: left out {counted(len(gallery.left_out), 'file')} of the plan:", file=sys.stderr)
        for problem in gallery.left_out:
            print(f"  - {problem}", file=sys.stderr)


def _rated(store: "RatingStore") -> str:
    return f"{counted(len(store.all()), 'rating')} by {counted(len(store.labelers()), 'labeler')}"


def _export(chosen: argparse.Namespace) -> None:
    from finetune_monitor.base.files import check_named

    output = chosen.output
    if os.path.lexists(output):
        raise UserError(f"{output}: already exists; choose another name or remove it")
    check_named(output)
    if output.suffix.lower() == ".csv":
        _export_ratings(chosen.folder, output, chosen.metric)
    elif output.suffix.lower() == ".html":
        _export_page(chosen.folder, output, chosen.metric)
    else:
        raise UserError(f"{output}: expected a file that ends in .csv, for the ratings, or .html, for the page")


def _export_ratings(folder: Path, output: Path, metric: str | None) -> None:
    from finetune_monitor.base.files import write_named
    from finetune_monitor.studies.labeling.ratings import to_csv
    from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
    from finetune_monitor.studies.labeling.tasks import read_plan

    metrics = _chosen(read_plan(folder).metrics, metric)
    ratings = [rating for rating in RatingStore(folder / RATINGS).all() if rating.metric in metrics]
    if not ratings:
        raise UserError(f"{folder}: found no ratings yet; run `finetune-monitor label serve` and rate some images")
    write_named(output, to_csv(ratings).encode())
    print(f"wrote:  {output}, {counted(len(ratings), 'rating')}")


def _export_page(folder: Path, output: Path, metric: str | None) -> None:
    from finetune_monitor.studies.labeling.images import open_gallery
    from finetune_monitor.studies.labeling.standalone import write_standalone

    gallery = open_gallery(folder)
    _warn(gallery)
    size = write_standalone(output, gallery, _chosen(gallery.by_metric, metric))
    print(f"wrote:  {output}, {size / 1e6:.1f} MB; labelers download their ratings from the page and send them to you")
    if size > LARGE:
        print(f"note:   over {LARGE // 10**6} MB is slow to send and to open; --metric writes a page for one question")


def _chosen(metrics: Iterable[str], metric: str | None) -> list[str]:
    found = list(metrics)
    if metric is not None and metric not in found:
        raise UserError(f"--metric: found {metric}, expected {' or '.join(found)}")
    return found if metric is None else [metric]
