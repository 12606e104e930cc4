"""Describes pictures in words by what can be measured in them: colour, background, light and framing."""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass

from torch import Tensor

HUES = ((0.04, "red"), (0.11, "brown"), (0.19, "yellow"), (0.45, "green"), (0.72, "blue"), (0.9, "purple"), (1, "red"))


@dataclass(frozen=True)
class Facts:
    """What is known of one picture; `light` is empty for ordinary light."""

    close: bool
    grey: bool
    background: str
    light: str


def colour_name(red: float, green: float, blue: float) -> str:
    """Names a background colour given as numbers between 0 and 1."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.3:
        return "dark"
    if saturation > 0.2:
        return next(name for limit, name in HUES if hue <= limit)
    return "light" if value > 0.72 else "grey"


def light_name(brightness: float) -> str:
    """Names the light on a face from the brightness of the picture's middle, between 0 and 1."""
    if brightness < 0.38:
        return "dimly lit"
    return "brightly lit" if brightness > 0.62 else ""


def measure(picture: Tensor, close: bool) -> Facts:
    """Measures the facts of one 64-pixel picture between -1 and 1."""
    picture = (picture + 1) / 2
    chroma = (picture.amax(0) - picture.amin(0)).mean().item()
    corners = (picture[:, :10, :10], picture[:, :10, -10:], picture[:, 20:40, :4], picture[:, 20:40, -4:])
    border = sum(corner.flatten(1).median(1).values for corner in corners) / len(corners)
    middle = picture[:, 16:48, 16:48].mean().item()
    return Facts(close, chroma < 0.04, colour_name(*border.tolist()), light_name(middle))


def caption(facts: Facts, chance: random.Random) -> str:
    """Writes a caption of the facts, each of which is left out now and then, so that short captions occur as well."""
    words = ["a"]
    if facts.close and chance.random() < 0.6:
        words.append("close-up")
    if facts.grey and chance.random() < 0.85:
        words.append("black and white")
    elif not facts.grey and chance.random() < 0.15:
        words.append("colour")
    text = " ".join([*words, "photo of a person"])
    details = [f"{facts.background} background"] if chance.random() < 0.5 else []
    if facts.light and chance.random() < 0.5:
        details.append(facts.light)
    return ", ".join([text, *details])
