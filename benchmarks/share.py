"""Measure the share of the wall time that evaluations take at the config's grid and interval.

python benchmarks/share.py --size demo
python benchmarks/share.py --size sd15
"""

from itertools import pairwise
from statistics import median

from measure import SECONDS, arguments, listing, publish
from memory import Runs

from finetune_monitor.training.config import load_config
from models import scale

AIM = 0.1


def parts(ended: list[float], every: int) -> tuple[list[float], list[float]]:
    """Seconds of the evaluations, and of the training steps between them.

    The first evaluation, before step 1, loads and encodes; the last one is followed by no step. Neither is counted.

    Args:
        ended: when each step ended, in order.
        every: steps between evaluations.
    """
    gaps = [later - earlier for earlier, later in pairwise(ended)]
    between = [gap for step, gap in enumerate(gaps, 2) if (step - 1) % every]
    step = sum(between) / len(between)
    return [gap - step for number, gap in enumerate(gaps, 2) if (number - 1) % every == 0], between


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--every", type=int, default=40, help="steps between evaluations while measuring")
    parser.add_argument("--steps", type=int, help="of the scheduler; default: the config's")
    options = parser.parse_args()
    chosen = scale(options.size)
    config = load_config(chosen.config)
    train, grid = config.train, config.monitor.grid
    steps = options.steps or grid.steps
    runs = Runs(chosen, options.size, train.batch_size, 4 * options.every)
    words = [word for word in runs.evaluations() if "grid.steps" not in word]
    words += [f"monitor.grid.steps={steps}", f"monitor.every={options.every}", "monitor.stopping=[]"]
    costs, between = parts(runs.run(words).ended, options.every)
    cost, step, every = median(costs), sum(between) / len(between), config.monitor.every
    share = cost / (cost + every * step)
    fits = next(n for n in range(1, 10_000) if cost / (cost + n * every * step) <= AIM)
    notes = [
        f"- At the config's interval of {every} steps, evaluations take {100 * share:.1f} % of the time. With "
        f"monitor.max_overhead={AIM:g}, the interval is {fits * every} steps.",
        f"- {chosen.config.name} at batch {train.batch_size}, {chosen.pixels} px, precision {chosen.precision}, no "
        f"class images; {len(config.prompt_grid.cells)} images per evaluation, {steps} scheduler steps. An evaluation "
        "is everything that training waits for: rendering, scores, record, and sinks.",
    ]
    values = {"an evaluation": costs, "a training step": between}
    publish("Share of evaluations", options.size, [listing(values, SECONDS), "\n".join(notes)])


if __name__ == "__main__":
    main()
