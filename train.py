"""Fine-tune Stable Diffusion or SDXL: accelerate launch train.py --config configs/X.yaml [key=value ...]"""

import sys

from finetune_monitor.base.ending import ends_with, prepare_to_end
from finetune_monitor.base.interrupts import end_quietly

if __name__ == "__main__":
    prepare_to_end()
    end_quietly()

    from finetune_monitor.commands.train import main

    sys.exit(ends_with(main()))
