"""The commands `finetune-monitor label plan|serve|export`: their options, and what they print."""

import argparse
import ipaddress
import logging
import os
import secrets
import shlex
import socket
import sys
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.errors import UserError
from finetune_monitor.options import share, whole_number

if TYPE_CHECKING:
    from finetune_monitor.agreement.labelling.pictures import Gallery
    from finetune_monitor.agreement.labelling.serving import Access
    from finetune_monitor.agreement.labelling.storage import RatingStore

KEY = "access.key"

ANY = "0.0.0.0"
"""The host that stands for every address of this machine."""

THREADS = 8

LARGE = 100_000_000
"""Bytes; a larger page is hard to send and slow to open."""


def add_label(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `label` with its three commands."""
    parser = commands.add_parser("label", help="ask people to rate pictures from 1 to 5")
    kinds = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_plan(kinds.add_parser("plan", help="draw the pictures to be rated, and write them down as a plan"))
    _add_serve(kinds.add_parser("serve", help="open a plan's labelling page in the browsers of this machine"))
    _add_export(kinds.add_parser("export", help="write the ratings as CSV, or the page as one HTML file"))


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="run directories, or folders of images")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder for the plan")
    parser.add_argument(
        "--per-person",
        type=whole_number,
        default=128,
        metavar="N",
        help="images a person, half for each question; 128",
    )
    parser.add_argument(
        "--repeats", type=share, default=0.05, metavar="X", help="share of images that are shown twice; 0.05"
    )
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="of the draw and of every order; 0")
    parser.add_argument(
        "--references",
        type=_reference,
        nargs="+",
        action="extend",
        default=[],
        metavar="PERSON=FOLDER",
        help="a person's photos, where no run says which they are",
    )
    parser.set_defaults(run=_plan)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a plan's folder; the ratings are kept in it")
    parser.add_argument("--port", type=_port, default=8760, metavar="N", help="0 for any that is free; default: 8760")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help=f"of this machine, for labelers on other ones; {ANY} for all it has; default: this machine only",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser here")
    parser.set_defaults(run=_serve)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a plan's folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="a new .csv for ratings, or .html for the page"
    )
    parser.add_argument("--metric", metavar="NAME", help="only what is asked for this metric")
    parser.set_defaults(run=_export)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port from 0 to 65535")
    return int(text)


def _reference(text: str) -> tuple[str, Path]:
    person, _, folder = text.partition("=")
    if not person or not folder:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected PERSON=FOLDER")
    return person, Path(folder)


def _plan(chosen: argparse.Namespace) -> None:
    from finetune_monitor.agreement.labelling.plan import draw_plan

    names = [person for person, _ in chosen.references]
    twice = sorted({person for person in names if names.count(person) > 1})
    if twice:
        raise UserError(f"--references: found {', '.join(twice)} more than once; give each person one folder")
    references = dict(chosen.references)
    drawn = draw_plan(chosen.sources, chosen.output, chosen.per_person, chosen.repeats, chosen.seed, references)
    _print_counts(drawn.counts)
    for note in drawn.notes:
        print(f"note:  {note}")
    print(f"plan:  {chosen.output}")
    print(f"next:  finetune-monitor label serve {shlex.quote(str(chosen.output))}")


def _print_counts(counts: dict[tuple[str, str], int]) -> None:
    """Images a person and metric."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    persons, metrics = (list(dict.fromkeys(names)) for names in zip(*counts, strict=True))
    table = Table("person", *(Column(escape(metric), justify="right") for metric in metrics))
    for person in persons:
        table.add_row(
            escape(person.encode(errors="backslashreplace").decode()),
            *(str(counts.get((person, metric), 0)) for metric in metrics),
        )
    if len(persons) > 1:
        sums = [sum(counts.get((person, metric), 0) for person in persons) for metric in metrics]
        table.add_section()
        table.add_row("all", *map(str, sums))
    Console().print(table)


def _serve(chosen: argparse.Namespace) -> None:
    from finetune_monitor.agreement.labelling.pictures import open_gallery
    from finetune_monitor.agreement.labelling.serving import make_app
    from finetune_monitor.agreement.labelling.storage import RATINGS, RatingStore

    gallery = open_gallery(chosen.folder)
    _warn(gallery)
    store = RatingStore(chosen.folder / RATINGS)
    store.create()
    access = _access(chosen.host, chosen.folder)
    app = make_app(gallery, store, access)
    with _listening(chosen.host, chosen.port) as listening:
        link = _link(chosen.host, listening.getsockname()[1], access)
        asked = (f"{metric} {len(tasks)} pictures" for metric, tasks in gallery.by_metric.items())
        print(f"asked:  {', '.join(asked)}; {_count(store)} so far")
        print(f"open:   {link}")
        print("stop:   Ctrl-C; every answer is saved as it comes", flush=True)
        if chosen.open:
            _open(link)
        _run(app, listening)
    print(f"\nsaved:  {_count(store)}, all in {store.file}")
    print(f"next:   finetune-monitor agree {shlex.quote(str(chosen.folder))} -o agreement")


def _run(app: object, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    from waitress import create_server

    from finetune_monitor.agreement.labelling.serving import BODY

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a browser that loads ahead is no overload
    create_server(app, sockets=[listening], threads=THREADS, max_request_body_size=BODY, ident=None).run()


def _open(link: str) -> None:
    if not webbrowser.open(link):
        print("finetune-monitor: found no browser to open; follow the link yourself", file=sys.stderr)


def _warn(gallery: "Gallery") -> None:
    if gallery.left_out:
        print(f"finetune-monitor: {len(gallery.left_out)} files of the plan are left out:", file=sys.stderr)
        for problem in gallery.left_out:
            print(f"  - {problem}", file=sys.stderr)


def _count(store: "RatingStore") -> str:
    ratings = store.all()
    labelers = len({rating.labeler for rating in ratings})
    return f"{len(ratings)} ratings by {labelers} labeler{'' if labelers == 1 else 's'}"


def _access(host: str, folder: Path) -> "Access":
    """This machine alone; or whoever has the link with the key, where the host is another address."""
    from finetune_monitor.agreement.labelling.serving import Access

    if ":" in host:
        raise UserError(f"--host: found {host}, expected an IPv4 address or a name")
    if _is_loopback(host):
        return Access(("localhost", "127.0.0.1", host))
    return Access(None if host == ANY else (host,), _key(folder / KEY))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(file: Path) -> str:
    """The folder's key, made when it is first needed, for its owner's eyes only."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); the link's key is kept there") from error
    key = file.read_text().strip()
    if len(key) < 16:
        raise UserError(f"{file}: damaged; remove it, and the link changes")
    return key


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another port or address of this machine"
        ) from error


def _link(host: str, port: int, access: "Access") -> str:
    address = _own_address() if host == ANY else host
    return f"http://{address}:{port}/" + (f"?key={access.key}" if access.key else "")


def _own_address() -> str:
    """The address under which other machines most likely reach this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _export(chosen: argparse.Namespace) -> None:
    output = chosen.output
    if output.exists():
        raise UserError(f"{output}: exists already; choose another name, or remove it")
    if output.suffix.lower() == ".csv":
        _export_ratings(chosen.folder, output, chosen.metric)
    elif output.suffix.lower() == ".html":
        _export_page(chosen.folder, output, chosen.metric)
    else:
        raise UserError(f"{output}: expected a file that ends in .csv, for the ratings, or .html, for the page")


def _export_ratings(folder: Path, output: Path, metric: str | None) -> None:
    from finetune_monitor.agreement.labelling.storage import RATINGS, RatingStore
    from finetune_monitor.agreement.ratings import to_csv
    from finetune_monitor.agreement.tasks import read_plan
    from finetune_monitor.files import write_atomic

    metrics = _chosen(read_plan(folder).metrics, metric)
    ratings = [rating for rating in RatingStore(folder / RATINGS).all() if rating.metric in metrics]
    if not ratings:
        raise UserError(f"{folder}: found no rating yet; run `finetune-monitor label serve` and rate some pictures")
    write_atomic(output, to_csv(ratings).encode())
    print(f"wrote:  {output}, {len(ratings)} ratings")


def _export_page(folder: Path, output: Path, metric: str | None) -> None:
    from finetune_monitor.agreement.labelling.pictures import open_gallery
    from finetune_monitor.agreement.labelling.standalone import write_standalone

    gallery = open_gallery(folder)
    _warn(gallery)
    size = write_standalone(output, gallery, _chosen(gallery.by_metric, metric))
    print(f"wrote:  {output}, {size / 1e6:.1f} MB; its labelers download their ratings from it and send them to you")
    if size > LARGE:
        print(f"note:   over {LARGE // 10**6} MB is slow to send and to open; --metric makes a page for each question")


def _chosen(metrics: Iterable[str], metric: str | None) -> list[str]:
    found = list(metrics)
    if metric is not None and metric not in found:
        raise UserError(f"--metric: found {metric}, expected {' or '.join(found)}")
    return found if metric is None else [metric]
