"""Fine-tune Stable Diffusion v1.5: accelerate launch train.py --config configs/X.yaml [key=value ...]"""

import sys

from finetune_monitor.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
