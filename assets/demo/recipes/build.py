"""Makes all demo models and photos, one recipe after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RECIPES = ("astronaut", "vae", "diffusion", "rare_word", "clip", "aesthetic_head")
WITHOUT_PORTRAITS = ("astronaut", "rare_word")


def main() -> None:
    for name in RECIPES:
        recipe = Path(__file__).with_name(f"{name}.py")
        options = [] if name in WITHOUT_PORTRAITS else sys.argv[1:]
        subprocess.run([sys.executable, str(recipe), *options], check=True)


if __name__ == "__main__":
    main()
