"""Types for the commands' options, and options that several have."""

import argparse

from finetune_monitor.record.kept_weights import BEST, LAST

GREATEST = 2**31 - 1

LARGEST_SIDE = 4096


def whole_number(text: str) -> int:
    """A count or a seed."""
    if not text.isdecimal() or int(text) > GREATEST:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 0 to {GREATEST}")
    return int(text)


def side(text: str) -> int:
    """The side of a model's images in pixels."""
    if not text.isdecimal() or not 64 <= int(text) <= LARGEST_SIDE or int(text) % 8:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a multiple of 8 from 64 to {LARGEST_SIDE}")
    return int(text)


def kept_step(text: str) -> int | str:
    """A step, or the words `best` or `last`."""
    if text in (BEST, LAST):
        return text
    if not text.isdecimal() or int(text) > GREATEST:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a step, {BEST}, or {LAST}")
    return int(text)


def add_kept_step(parser: argparse.ArgumentParser) -> None:
    """Add `--step`, of the weights that a command takes."""
    words = "a step whose weights were kept, best, or last; default: best"
    parser.add_argument("--step", type=kept_step, default=BEST, metavar="S", help=words)


def share(text: str) -> float:
    """0 to 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a share from 0 to 1")
    return found


def port_number(text: str) -> int:
    """A port; 0 means any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port from 0 to 65535")
    return int(text)
