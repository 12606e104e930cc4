"""What a training imports, and when."""

import subprocess
import sys

import pytest

from support.places import ROOT

UNTIL_TORCH = """
import sys
from pathlib import Path
from finetune_monitor.training.main import main

class AtTorch:
    @staticmethod
    def find_spec(name, *_):
        if name == "torch":
            sys.exit("wandb" not in sys.modules)

sys.meta_path.insert(0, AtTorch)
main(Path("configs/demo.yaml"))
sys.exit("torch was never imported")
"""


@pytest.mark.slow
def test_wandb_which_reads_all_modules_is_imported_while_they_are_few():
    assert subprocess.run([sys.executable, "-c", UNTIL_TORCH], cwd=ROOT, check=False).returncode == 0
