"""Where the repository's own files lie, and the real data that only some machines have."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

DEMO = ROOT / "assets/demo"

SHARED = ROOT.parent / "shared/data"
"""Photos, ratings and heads that may not be committed; tests that need them are skipped where they are not."""
