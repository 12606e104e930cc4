"""The command `finetune-monitor render`: render a recorded image again."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.commands.options import whole_number

if TYPE_CHECKING:
    from finetune_monitor.training.rerender import Rendering

DIFFERS = 1
"""Exit status if the image differs from the recorded one."""


def add_render(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `render`."""
    parser = commands.add_parser(
        "render",
        help="render a recorded image again from the exported weights",
        description="Render a recorded image again from the exported weights. Exit status: 0 if it equals the "
        "recorded image pixel for pixel, 1 if it does not.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run's output_dir")
    parser.add_argument(
        "--step", type=whole_number, required=True, metavar="S", help="step of the image; 0 is the base model"
    )
    parser.add_argument(
        "--cell", required=True, metavar="C", help="prompt and seed, in the run's notation, such as p00-s0"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="PNG file for the image")
    parser.set_defaults(run=_render)


def _render(chosen: argparse.Namespace) -> int:
    from finetune_monitor.base.imports import heavy_imports
    from finetune_monitor.models.loading import hide_loading

    with heavy_imports():
        from finetune_monitor.training.rerender import rerender
    if chosen.output is not None:
        _check_output(chosen.output, chosen.run_dir)
    hide_loading()
    found = rerender(chosen.run_dir, chosen.step, chosen.cell)
    _print_rendering(chosen, found)
    if chosen.output is not None:
        _write(chosen.output, found)
    return 0 if _equals(found) else DIFFERS


def _check_output(path: Path, run_dir: Path) -> None:
    """Check the output path before minutes of rendering.

    Raises:
        UserError: the name does not end in .png, it is one of the run's own images, or it cannot be written.
    """
    from finetune_monitor.base.files import check_named

    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: expected a name that ends in .png, which preserves every pixel")
    if path.resolve().is_relative_to(run_dir.resolve() / "images"):
        raise UserError(f"{path}: is among the run's recorded images, which must not change; choose another place")
    check_named(path)


def _write(path: Path, found: "Rendering") -> None:
    import io

    from finetune_monitor.base.files import write_named

    content = io.BytesIO()
    found.image.save(content, "PNG")
    write_named(path, content.getvalue())
    print(f"written:  {path}")


def _equals(found: "Rendering") -> bool:
    return found.distance is not None and found.distance.greatest == 0


def _print_rendering(chosen: argparse.Namespace, found: "Rendering") -> None:
    from finetune_monitor.base.text import visible

    print(f"image:    {visible(str(chosen.run_dir))}, step {chosen.step}, cell {found.cell.id}")
    print(f"prompt:   {visible(found.cell.prompt)} (seed {found.cell.seed})")
    print(f"weights:  {visible(found.weights)}")
    print(f"equal:    {_in_words(found)}")
    if not _equals(found):
        for note in found.notes:
            print(f"note:     {visible(note)}")


def _in_words(found: "Rendering") -> str:
    if found.recorded is None:
        return "unknown: the record has no image of this cell at this step"
    if found.distance is None:
        sizes = [f"{image.width} x {image.height}" for image in (found.recorded, found.image)]
        return f"no: the recorded image has {sizes[0]} pixels, this one has {sizes[1]}"
    if _equals(found):
        return "yes, pixel for pixel"
    greatest, share = found.distance.greatest, 100 * found.distance.share
    return f"no: up to {greatest} of 255 apart, in {share:.2g}% of the pixels"
