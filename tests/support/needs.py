"""What only some machines have: a test that needs it is skipped elsewhere, and the summary says how to get it."""

import os
import subprocess
from importlib import metadata
from importlib.util import find_spec

import pytest
import torch

from finetune_monitor.base.images import READS_AVIF
from support.places import SHARED


def _noise(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=dtype).float()


CHROMIUM = "needs Chromium: apt install chromium"
DIFFUSERS = "DIFFUSERS_REPOSITORY"
"""The environment variable that names a clone of diffusers, whose examples are in no package."""

avif = pytest.mark.skipif(not READS_AVIF, reason="needs Pillow 11.3 or newer, which reads AVIF")
bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None or not torch.cuda.is_available(),
    reason="needs a GPU and bitsandbytes: pip install bitsandbytes",
)
clearml = pytest.mark.skipif(find_spec("clearml") is None, reason="needs ClearML: pip install clearml")
diffusers_examples = pytest.mark.skipif(
    DIFFUSERS not in os.environ,
    reason=f"needs diffusers' examples: {DIFFUSERS}=PATH of a clone of github.com/huggingface/diffusers at v0.40.0",
)
flux_samplers = pytest.mark.skipif(
    metadata.version("diffusers").startswith(("0.33.", "0.34.")), reason="needs diffusers 0.35: Flux takes one sampler"
)
heic = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs pillow_heif: pip install pillow_heif")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
jupyter = pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None,
    reason="needs Jupyter: pip install nbclient ipykernel",
)
lightning = pytest.mark.skipif(find_spec("lightning") is None, reason="needs Lightning: pip install lightning")
mounts = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="needs permission to mount file systems, as root has",
)
ordinary_user = pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
same_noise = pytest.mark.skipif(
    not torch.allclose(_noise(torch.float16), _noise(torch.float32), atol=0.01),
    reason="needs a newer torch: 2.4 draws other noise in half precision on a CPU",
)


def shared(name: str) -> pytest.MarkDecorator:
    """For tests that read the file or folder `name` of ../shared/data."""
    reason = "needs ../shared/data beside the checkout, which is not part of the repository"
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=reason)
