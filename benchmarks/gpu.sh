#!/usr/bin/env bash
# Checks and measures everything on this machine's GPU, in under eight minutes on a large one, and writes the results to
# benchmarks/GPU.md. Needs only this checkout and the installed package:  benchmarks/gpu.sh
# REDUCED=1 runs the same commands on small models with very little work, to find mistakes in them, not to measure.
set -uo pipefail
cd "$(dirname "$0")/.."

export PYTHONPATH=. HF_HUB_OFFLINE=1 WANDB_MODE=offline
python=${PYTHON:-python}
usual=benchmarks/usual_training.py
status=0

measure() {  # measure SECONDS SCRIPT [ARGUMENTS]: if it fails or takes too long, the others still run
    local limit=$1 started=$SECONDS
    shift
    timeout "$limit" "$python" "benchmarks/$1" "${@:2}" || { echo "gpu.sh: $1 ended with $?" >&2; status=1; }
    echo "gpu.sh: $1 took $((SECONDS - started)) s" >&2
}

if [ -n "${REDUCED:-}" ]; then
    measure 600 gpu_checks.py
    measure 600 evaluation.py --rounds 1 --steps 1
    measure 600 share.py --every 2 --steps 1
    measure 600 scoring.py --rounds 1 --images 4
    measure 600 training.py --rounds 1 --script $usual --photos small --batches 1 --warmup 1 --steps 2
    measure 600 memory.py --rounds 1 --steps 1
else
    measure 100 gpu_checks.py
    measure 130 evaluation.py --size sd15 --rounds 1
    measure 70 share.py --size sd15
    measure 30 scoring.py --size sd15 --rounds 1
    measure 110 training.py --size sd15 --rounds 1 --script $usual --photos small
    measure 40 memory.py --size sd15 --rounds 1
fi
exit $status
