"""The command `finetune-monitor purge`: remove every image of a run or a sweep, and keep the numbers."""

import argparse
import shlex
import sys
from pathlib import Path

from finetune_monitor.base.errors import UserError, all_problems


def add_purge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `purge`."""
    parser = commands.add_parser(
        "purge",
        help="remove every image of a run or a sweep, and keep the numbers",
        description="Remove images, thumbnails, and copies of reference photos of a run, or of all runs of a sweep, "
        "including those in its page and in the local files of TensorBoard and W&B. Scores, curves, prompts, and "
        "weights stay. Photos elsewhere, and anything sent to W&B or the Hugging Face Hub, are not touched.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's output_dir, or a sweep's")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.set_defaults(run=_purge, kept="; run the same command again to continue")


def _purge(chosen: argparse.Namespace) -> int:
    from finetune_monitor.base.text import counted, visible
    from finetune_monitor.record.run_directory import RUN
    from finetune_monitor.sinks.purging import check_purgeable, purge_folder

    check_purgeable(chosen.folder)
    folder = visible(str(chosen.folder))
    if not chosen.yes and not _is_wanted(folder):
        print("nothing was removed")
        return 1
    try:
        found = purge_folder(chosen.folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or chosen.folder}: cannot be removed ({error.strerror}); fix that and run purge again"
        ) from error
    print(f"removed:   {counted(found.removed, 'file')}")
    print(f"rewritten: {counted(found.rewritten, 'file')}, without images")
    show = f"; finetune-monitor show {shlex.quote(folder)}" if (chosen.folder / RUN).exists() else ""
    print(f"kept:      scores, curves, prompts, and weights{show}")
    all_problems(list(found.problems), f"{folder}: images may be left")
    return 0


def _is_wanted(folder: str) -> bool:
    """Whether the user agrees.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError(f"{folder}: found no terminal to confirm in, expected --yes; add it to remove the images")
    return input(f"Remove all images in {folder}? This cannot be undone. [y/N] ").strip().lower() in ("y", "yes")
