"""The command `finetune-monitor score`: score images, LoRA files, and base models of any origin."""

import argparse
import math
from pathlib import Path


def add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `score`."""
    parser = commands.add_parser(
        "score",
        help="score images and LoRA files of any trainer, or a base model",
        description="Score images and LoRA files of any trainer, or a base model, with the monitor's metrics. Run "
        "the same command again to continue: what is recorded is not scored again.",
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a folder of images, LoRA files or a folder of them, or a base model (its folder, file, or hub id)",
    )
    parser.add_argument(
        "--references", type=Path, metavar="FOLDER", help="photos of the subject; required unless --config names them"
    )
    parser.add_argument("--base", metavar="MODEL", help="base model of the LoRA files: its folder, file, or hub id")
    parser.add_argument(
        "--strengths", type=_strength, nargs="+", metavar="S", help="strengths of LoRA files; default: 1.0"
    )
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=(),
        metavar="TEXT",
        help="prompts to render LoRA files with; for images, the trainer's prompts, in its order",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a training config, whose grid, metrics, and sinks are used"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=(),
        metavar="KEY=VALUE",
        help="config keys to override, such as monitor.grid.steps=20",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder for the scores; default: runs/score-PATH"
    )
    parser.add_argument("--watch", action="store_true", help="keep scoring new files as they appear, until Ctrl-C")
    parser.set_defaults(run=_score, kept="; run the same command to continue")


def _score(chosen: argparse.Namespace) -> int:
    from finetune_monitor.base.errors import UserError
    from finetune_monitor.base.imports import heavy_imports
    from finetune_monitor.training.shipped import shipped

    with heavy_imports():
        from finetune_monitor.scoring.run import score
        from finetune_monitor.scoring.settings import Options

    if chosen.references is None and chosen.config is None:
        raise UserError(
            "--references: found none, expected a folder with photos of the subject; add it, or a --config with photos"
        )
    return score(
        Options(
            paths=[Path(shipped(str(path))) for path in chosen.paths],
            references=None if chosen.references is None else Path(shipped(str(chosen.references))),
            base=None if chosen.base is None else shipped(chosen.base),
            strengths=None if chosen.strengths is None else list(dict.fromkeys(chosen.strengths)),
            prompts=chosen.prompts,
            output_dir=chosen.output or _default_output(chosen.paths[0]),
            config=chosen.config,
            changes=chosen.set,
            watch=chosen.watch,
        )
    )


def _default_output(path: Path) -> Path:
    """A folder named after the first path; `v1.5` is a name, and `ana.safetensors` has a suffix."""
    found = path.resolve()
    return Path("runs", f"score-{found.stem if found.is_file() else found.name}")


def _strength(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or found == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number other than 0, such as 0.8")
    return found
