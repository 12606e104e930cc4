"""What tests of faces share: a detector, and a photo with a face."""

import pytest
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.models.faces import FaceFinder


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    return Image.fromarray(astronaut())
