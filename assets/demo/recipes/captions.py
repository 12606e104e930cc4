"""Describes images in words by what can be measured in them: color, background, light and framing."""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass

from torch import Tensor

HUES = ((0.04, "red"), (0.11, "brown"), (0.19, "yellow"), (0.45, "green"), (0.72, "blue"), (0.9, "purple"), (1, "red"))


@dataclass(frozen=True)
class Facts:
    """What is known of one image; `light` is empty for ordinary light."""

    close: bool
    gray: bool
    background: str
    light: str


def color_name(red: float, green: float, blue: float) -> str:
    """Names a background color given as numbers between 0 and 1."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.3:
        return "dark"
    if saturation > 0.2:
        return next(name for limit, name in HUES if hue <= limit)
    return "light" if value > 0.72 else "gray"


def light_name(brightness: float) -> str:
    """Names the light on a face from the brightness of the image's middle, between 0 and 1."""
    if brightness < 0.38:
        return "dimly lit"
    return "brightly lit" if brightness > 0.62 else ""


def measure(image: Tensor, close: bool) -> Facts:
    """Measures the facts of one 64-pixel image between -1 and 1."""
    image = (image + 1) / 2
    chroma = (image.amax(0) - image.amin(0)).mean().item()
    corners = (image[:, :10, :10], image[:, :10, -10:], image[:, 20:40, :4], image[:, 20:40, -4:])
    border = sum(corner.flatten(1).median(1).values for corner in corners) / len(corners)
    middle = image[:, 16:48, 16:48].mean().item()
    return Facts(close, chroma < 0.04, color_name(*border.tolist()), light_name(middle))


def caption(facts: Facts, chance: random.Random) -> str:
    """Writes a caption of the facts, each of which is left out now and then, so that short captions occur as well."""
    words = ["a"]
    if facts.close and chance.random() < 0.6:
        words.append("close-up")
    if facts.gray and chance.random() < 0.85:
        words.append("black and white")
    elif not facts.gray and chance.random() < 0.15:
        words.append("color")
    text = " ".join([*words, "photo of a person"])
    details = [f"{facts.background} background"] if chance.random() < 0.5 else []
    if facts.light and chance.random() < 0.5:
        details.append(facts.light)
    return ", ".join([text, *details])
