"""The commands `finetune-monitor aesthetic fit|eval|score`: their options, and what they print."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.commands.options import whole_number
from finetune_monitor.models.defaults import CLIP, PRETRAINED, SCALE
from finetune_monitor.studies.aesthetic_head.settings import BALANCES, LOSSES, FitSettings

if TYPE_CHECKING:
    from finetune_monitor.studies.aesthetic_head.experiment import ExperimentInputs, ExperimentOutcome

KEPT = "; embeddings computed so far are kept; run the same command to continue"


def add_aesthetic(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `aesthetic` with its three commands."""
    parser = commands.add_parser("aesthetic", help="fit your own aesthetic head, evaluate a head, or score images")
    kinds = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_fit(kinds.add_parser("fit", help="fit a head on rated images (AVA or CSV) and report how good it is"))
    _add_eval(kinds.add_parser("eval", help="evaluate any head on rated images"))
    _add_score(kinds.add_parser("score", help="print a head's scores for images as CSV"))


def _add_fit(parser: argparse.ArgumentParser) -> None:
    _add_inputs(parser, "folder for the head and the report", clip=CLIP, pretrained=PRETRAINED, scale=SCALE)
    parser.add_argument("--train", type=Path, metavar="LIST", help="file that names the training images, one per line")
    parser.add_argument(
        "--validation", type=Path, metavar="LIST", help="the same for the images that decide when fitting stops"
    )
    parser.add_argument(
        "--test",
        type=Path,
        metavar="LIST",
        help="the same for the test images of the report (AVA: generic_test.jpgl); default: a tenth of the images",
    )
    parser.add_argument(
        "--folds",
        type=whole_number,
        metavar="N",
        help="evaluate by cross-validation with N folds, for small data sets; the final head is fitted on all images",
    )
    parser.add_argument(
        "--loss", choices=LOSSES, default=FitSettings.loss, help="loss on the mean rating, or on the histogram of votes"
    )
    parser.add_argument(
        "--balance",
        choices=BALANCES,
        default=FitSettings.balance,
        help="give rare ratings more weight (lds: label-distribution smoothing), sample them more often, or neither",
    )
    hidden = FitSettings.hidden
    parser.add_argument(
        "--hidden",
        type=_widths,
        default=hidden,
        metavar="N,N",
        help=f"widths of the hidden layers; 0 for a single linear layer; default: {','.join(map(str, hidden))}",
    )
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=FitSettings.seed,
        metavar="N",
        help="seed of the initial weights, the order of the images, and dropout",
    )
    parser.add_argument("--notice", help="a sentence to show wherever the head's scores appear")
    parser.set_defaults(run=_fit, kept=KEPT)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    _add_head(parser)
    _add_inputs(parser, "folder for the report")
    parser.add_argument(
        "--only", type=Path, metavar="LIST", help="file that names the images to evaluate on, one per line"
    )
    parser.set_defaults(run=_eval, kept=KEPT)


def _add_score(parser: argparse.ArgumentParser) -> None:
    _add_head(parser)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files or folders of images")
    _add_clip(parser)
    parser.set_defaults(run=_score)


def _add_head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", metavar="HEAD", help="a file, or the name of a public head")


def _add_inputs(
    parser: argparse.ArgumentParser,
    output: str,
    clip: str | None = None,
    pretrained: str | None = None,
    scale: tuple[float, float] | None = None,
) -> None:
    parser.add_argument("ratings", type=Path, metavar="RATINGS", help="AVA.txt, or a CSV file with images and ratings")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with the images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=output)
    usual = f"{scale[0]:g} {scale[1]:g}" if scale else "the head's scale"
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=scale,
        metavar=("LOW", "HIGH"),
        help=f"lowest and highest possible rating; default: {usual}",
    )
    parser.add_argument(
        "--embeddings", type=Path, metavar="DIR", help="folder for stored embeddings; default: the cache folder"
    )
    parser.add_argument(
        "--workers", type=whole_number, metavar="N", help="processes that read images; default: one per core"
    )
    _add_clip(parser, clip, pretrained)


def _add_clip(parser: argparse.ArgumentParser, clip: str | None = None, pretrained: str | None = None) -> None:
    default = clip or "the CLIP that the head was fitted on"
    parser.add_argument("--clip", default=clip, help=f"name of an open_clip model, or a folder; default: {default}")
    parser.add_argument("--pretrained", default=pretrained, help="tag of the CLIP's weights in open_clip")
    parser.add_argument("--device", help="torch device; default: cuda if there is a GPU, otherwise cpu")


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(word) for word in text.split(","))
    except ValueError:
        widths = (-1,)
    if widths != (0,) and min(widths) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected widths such as 256,64, or 0 for none")
    return () if widths == (0,) else widths


def _fit(chosen: argparse.Namespace) -> None:
    from finetune_monitor.studies.aesthetic_head.experiment import HEAD_FILE, fit
    from finetune_monitor.studies.aesthetic_head.splits import Lists

    settings = FitSettings(loss=chosen.loss, balance=chosen.balance, hidden=chosen.hidden, seed=chosen.seed)
    lists = Lists(chosen.train, chosen.validation, chosen.test)
    if chosen.folds is not None and lists != Lists():
        raise UserError(
            "--folds: found lists of images too; leave them out, because cross-validation splits all images"
        )
    inputs = _inputs(chosen, chosen.clip, chosen.pretrained, tuple(chosen.scale))
    _print(fit(inputs, chosen.output, settings, lists, chosen.folds, chosen.notice), chosen.output)
    tag = None if Path(chosen.clip).is_dir() else chosen.pretrained
    where = {"clip": chosen.clip, "pretrained": tag, "head": str(chosen.output / HEAD_FILE)}
    print(f"in a config:  monitor.metrics.aesthetic: {json.dumps(where)}")


def _eval(chosen: argparse.Namespace) -> None:
    from finetune_monitor.metrics.aesthetic_head import find_head, read_head, scale_of
    from finetune_monitor.studies.aesthetic_head.experiment import evaluate

    metadata = read_head(find_head(chosen.head))[1]
    clip, pretrained = _clip(chosen, metadata)
    inputs = _inputs(chosen, clip, pretrained, tuple(chosen.scale or scale_of(metadata)))
    _print(evaluate(chosen.head, inputs, chosen.output, chosen.only), chosen.output)


def _score(chosen: argparse.Namespace) -> None:
    from finetune_monitor.metrics.aesthetic_head import find_head, read_head
    from finetune_monitor.studies.aesthetic_head.scoring import print_scores

    clip, pretrained = _clip(chosen, read_head(find_head(chosen.head))[1])
    print_scores(chosen.images, chosen.head, clip, pretrained, _device(chosen.device))


def _clip(chosen: argparse.Namespace, metadata: Mapping[str, str]) -> tuple[str, str | None]:
    """The CLIP given by option, or otherwise the one that the head was fitted on."""
    from finetune_monitor.metrics.aesthetic_head import clip_of

    own = clip_of(metadata)
    if chosen.clip is not None:
        if own is not None and own[0] == chosen.clip and chosen.pretrained is None:
            return own
        return chosen.clip, chosen.pretrained
    if chosen.pretrained is not None:
        raise UserError(f"--pretrained: found {chosen.pretrained} without --clip; give both or neither")
    if own is None:
        raise UserError(f"{chosen.head}: does not state which CLIP it was fitted on; give it with --clip")
    if own[1] is None and not Path(own[0]).is_dir():
        raise UserError(
            f"{chosen.head}: was fitted on the CLIP in the folder {own[0]}, which is missing here; give it with --clip"
        )
    return own


def _device(name: str | None) -> str:
    """The requested device, or otherwise the GPU if there is one."""
    import torch

    gpus = torch.cuda.device_count()
    if name is None:
        return "cuda" if gpus else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: found {name}, expected cpu, cuda, or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(f"--device: found {name}, but torch can use {gpus} GPUs on this machine")
    return name


def _inputs(
    chosen: argparse.Namespace, clip: str, pretrained: str | None, scale: tuple[float, float]
) -> "ExperimentInputs":
    from finetune_monitor.models.weights import cache_folder
    from finetune_monitor.studies.aesthetic_head.embedding import WORKERS
    from finetune_monitor.studies.aesthetic_head.experiment import ExperimentInputs

    return ExperimentInputs(
        ratings=chosen.ratings,
        images=chosen.images,
        clip=clip,
        pretrained=pretrained,
        store=chosen.embeddings or cache_folder() / "embeddings",
        scale=scale,
        device=_device(chosen.device),
        workers=WORKERS if chosen.workers is None else chosen.workers,
    )


def _print(outcome: "ExperimentOutcome", output: Path) -> None:
    """Print the table of all predictors, and where to find the results."""
    from finetune_monitor.sinks.console import print_estimates

    rows = {name: (found.srcc, found.plcc, found.mae) for name, found in outcome.measured.overall.items()}
    print_estimates(("SRCC", "PLCC", "MAE"), rows)
    for note in outcome.notes:
        print(f"note:         {note}")
    print(f"left out:     {outcome.left_out}")
    print(f"report:       {output / 'report.md'}")
