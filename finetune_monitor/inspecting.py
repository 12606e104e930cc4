"""The commands `finetune-monitor compare` and `render`: their options, and what they print."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.errors import UserError
from finetune_monitor.options import whole_number

if TYPE_CHECKING:
    from rich.table import Table

    from finetune_monitor.comparing import Comparison, Moment
    from finetune_monitor.record import RunHistory
    from finetune_monitor.rerendering import Rendering

DIRECTIONS = {True: "higher", False: "lower", None: ""}

DIFFERS = 1
"""Exit status where a picture is not the recorded one."""


def add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `compare`."""
    parser = commands.add_parser("compare", help="print what changed between two runs, or two steps of one")
    parser.add_argument("first", type=Path, metavar="RUN", help="a run's output_dir, also while it goes on")
    parser.add_argument("second", type=Path, metavar="RUN", help="what is compared with it; may be the same")
    parser.add_argument(
        "--step",
        type=whole_number,
        nargs="+",
        metavar="S",
        help="of both, or one of each; default: first each one's best step, then its last",
    )
    parser.set_defaults(run=_compare)


def add_render(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `render`."""
    parser = commands.add_parser(
        "render",
        help="make a recorded picture again from the exported weights",
        description="Makes a recorded picture again from the exported weights. Exit status: 0 where it equals the "
        "recorded one, pixel for pixel, 1 where it does not.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's output_dir")
    parser.add_argument("--step", type=whole_number, required=True, metavar="S", help="0 is the base model")
    parser.add_argument("--cell", required=True, metavar="C", help="prompt and seed as the run names them: p00-s0")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a PNG to write the picture to")
    parser.set_defaults(run=_render)


def _compare(chosen: argparse.Namespace) -> None:
    from finetune_monitor.comparing import UNKNOWN, compare
    from finetune_monitor.record import read_run

    first, second = (read_run(folder) for folder in (chosen.first, chosen.second))
    for history in (first, second):
        if not history.evaluations:
            raise UserError(f"{history.output_dir}: has no evaluation yet; wait for the first one")
    for heading, moments in _pairs(first, second, chosen.step).items():
        _print_comparison(heading, compare(*moments))
    print(UNKNOWN)


def _pairs(first: "RunHistory", second: "RunHistory", steps: list[int] | None) -> "dict[str, tuple[Moment, Moment]]":
    """The evaluations to compare, by what makes them a pair."""
    from finetune_monitor.comparing import at_step, best_step

    if steps is not None:
        if len(steps) > 2:
            raise UserError(f"--step: found {len(steps)} steps, expected one for both runs, or one each")
        return {"the steps asked for": (at_step(first, steps[0]), at_step(second, steps[-1]))}
    if first.output_dir.resolve() == second.output_dir.resolve():
        raise UserError(f"{first.output_dir}: stands twice; name two steps of it: --step S S")
    found = {}
    best = best_step(first), best_step(second)
    if best[0] is not None and best[1] is not None:
        found["each run's best step"] = (at_step(first, best[0]), at_step(second, best[1]))
    last = tuple(history.evaluations[-1].step for history in (first, second))
    heading = "each run's last step"
    if best == last:
        found, heading = {}, "each run's best step, which is its last"
    return {**found, heading: (at_step(first, last[0]), at_step(second, last[1]))}


def _print_comparison(heading: str, found: "Comparison") -> None:
    from rich.console import Console

    from finetune_monitor.comparing import verdict
    from finetune_monitor.console import width_of
    from finetune_monitor.markdown import visible

    print(f"At {heading}:")
    for name, moment in (("first", found.first), ("second", found.second)):
        evaluation = moment.evaluation
        where = f"{visible(str(moment.history.output_dir))}, step {evaluation.step}"
        print(f"{name + ':':9}{where}: {found.shared} of its {len(evaluation.images)} cells are in both")
    table, console = _table(found), Console()
    needed = width_of(console, table)
    if not console.is_terminal:  # a log has no width that the lines would have to keep to
        console = Console(width=needed)
    console.print(table if needed <= console.width else _table(found, narrow=True))
    for difference in found.differences:
        print(f"{visible(difference.name)}: {verdict(difference)}")
        if difference.caution:
            print(f"note: {visible(difference.name)}: {visible(difference.caution)}")
    if found.only_in_one:
        print(f"note: measured in one of the two alone: {visible(', '.join(found.only_in_one))}")
    print()


def _table(found: "Comparison", narrow: bool = False) -> "Table":
    """A row a score; a narrow table leaves out what the sentences below it say too."""
    from rich.markup import escape
    from rich.table import Column, Table

    from finetune_monitor.markdown import number, shown, visible

    titles = ["first", "second", "second - first", *([] if narrow else ["images", "better"])]
    table = Table(Column("", overflow="fold", min_width=10), *(Column(title, justify="right") for title in titles))
    for each in found.differences:
        cells = [visible(each.name), number(each.first, ".3f"), number(each.second, ".3f"), shown(each.change)]
        counts = [f"{each.change.n} of {found.shared}", DIRECTIONS[each.higher_is_better]]
        table.add_row(*(escape(cell) for cell in (cells if narrow else cells + counts)))
    return table


def _render(chosen: argparse.Namespace) -> int:
    from finetune_monitor.rerendering import rerender

    if chosen.output is not None:
        _check_output(chosen.output, chosen.run_dir)
    _hide_loading()
    found = rerender(chosen.run_dir, chosen.step, chosen.cell)
    _print_rendering(chosen, found)
    if chosen.output is not None:
        _write(chosen.output, found)
    return 0 if _equals(found) else DIFFERS


def _hide_loading() -> None:
    """Loading takes seconds; its bars and its hints at parts without LoRA layers are no news here."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _check_output(path: Path, run_dir: Path) -> None:
    """Before minutes of rendering.

    Raises:
        UserError: the name is not a PNG's, or it is one of the run's own pictures.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: expected a name that ends in .png, which keeps every pixel")
    if path.resolve().is_relative_to(run_dir.resolve() / "images"):
        raise UserError(f"{path}: lies among the run's recorded pictures, which stay as they are; name another place")


def _write(path: Path, found: "Rendering") -> None:
    import io

    from finetune_monitor.files import write_atomic

    content = io.BytesIO()
    found.picture.save(content, "PNG")
    try:
        write_atomic(path, content.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error
    print(f"written:  {path}")


def _equals(found: "Rendering") -> bool:
    return found.distance is not None and found.distance.greatest == 0


def _print_rendering(chosen: argparse.Namespace, found: "Rendering") -> None:
    from finetune_monitor.markdown import visible

    print(f"picture:  {visible(str(chosen.run_dir))}, step {chosen.step}, cell {found.cell.id}")
    print(f"prompt:   {visible(found.cell.prompt)} (seed {found.cell.seed})")
    print(f"weights:  {visible(found.weights)}")
    print(f"equal:    {_in_words(found)}")
    if not _equals(found):
        for note in found.notes:
            print(f"note:     {visible(note)}")


def _in_words(found: "Rendering") -> str:
    if found.recorded is None:
        return "not known: the record has no picture of this cell at this step"
    if found.distance is None:
        sizes = [f"{picture.width} x {picture.height}" for picture in (found.recorded, found.picture)]
        return f"no: the recorded picture has {sizes[0]} pixels, this one {sizes[1]}"
    if _equals(found):
        return "yes, pixel for pixel"
    greatest, share = found.distance.greatest, 100 * found.distance.share
    return f"no: up to {greatest} of 255 apart, in {share:.2g} % of the pixels"
