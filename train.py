"""Fine-tune Stable Diffusion v1.5, watched: accelerate launch train.py --config configs/X.yaml [key=value ...]"""

import argparse
import os
import sys
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.training.config import load_config


def main() -> int:
    """Read the config, run; a problem that the user can put right is shown without a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, such as configs/sd15_lora.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, such as train.max_steps=500")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        from finetune_monitor.training.run import run

        return run(config)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # once, not by every process
            print(f"train.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
