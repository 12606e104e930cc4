"""SSCD as its publisher has it for torchvision: names, pooling, and what is no such file."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torchvision.models import resnet50

from finetune_monitor import PromptGrid
from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import RunContext, describe
from finetune_monitor.metrics.copying import BY_SSCD, NAME, SSCD_PHOTO, SSCD_SIMILARITY, Copying
from finetune_monitor.models.sscd import SscdEncoder

PHOTOS = [Image.fromarray(data.astronaut()), Image.fromarray(data.chelsea())]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the published shape, under the published names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sscd") / "sscd.torchvision.pt"
    torch.save({f"backbone.{name}": value for name, value in resnet50(num_classes=512).state_dict().items()}, path)
    return path


@pytest.mark.slow
def test_an_embedding_is_that_of_the_backbone_with_generalized_mean_pooling(weights):
    encoder = SscdEncoder(str(weights))
    network = resnet50(num_classes=512).eval()
    network.load_state_dict({k.removeprefix("backbone."): v for k, v in torch.load(weights, weights_only=True).items()})
    maps = []
    network.layer4.register_forward_hook(lambda module, given, found: maps.append(found))
    square = PHOTOS[0].resize((288, 288), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        network((pixels - mean) / std)
        pooled = maps[0].clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
        expected = torch.nn.functional.normalize(network.fc(pooled))
    assert np.allclose(encoder.rows(PHOTOS[:1]), expected.numpy(), atol=1e-5)
    assert encoder.rows([]).shape == (0, 512)


@pytest.mark.slow
def test_a_copy_is_found_and_the_weights_stand_in_the_description(weights):
    metric = Copying(PHOTOS, sscd=str(weights))
    assert list(describe(metric).columns)[3:] == [BY_SSCD, SSCD_SIMILARITY, SSCD_PHOTO]
    assert describe(metric).weights["sscd"]["id"] == str(weights)
    images = [PHOTOS[1].resize((64, 64)), Image.new("RGB", (64, 64), "red")]
    found = metric.score(images, PromptGrid(["a"], [0, 1]).cells)
    assert found[SSCD_PHOTO][0] == 1
    assert found[SSCD_SIMILARITY][0] > found[SSCD_SIMILARITY][1]
    assert found[NAME].tolist() == [1.0, 0.0]


def test_what_is_no_sscd_is_refused_before_training(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(tmp_path))
    run = RunContext(None, [], "cpu")
    with pytest.raises(UserError, match=r"sscd: found 'gone', expected disc_mixup, or the path"):
        Copying.for_run(Copying.Options(sscd="gone"), run)
    with pytest.raises(UserError, match=r"sscd_disc_mixup(?s:.*)published at: https.*(?s:.*)leave .*copying\.sscd out"):
        Copying.for_run(Copying.Options(sscd="disc_mixup"), run)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="not the weights of an SSCD ResNet-50"):
        Copying(PHOTOS, sscd=str(tmp_path / "other.pt"))
