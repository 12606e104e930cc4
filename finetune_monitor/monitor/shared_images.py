"""What metrics see of an evaluation's images: copies that all metrics share, so that each image is read only once."""

from collections.abc import Mapping

from PIL import ImageChops
from PIL.Image import Image


class SharedImages:
    """Copies of images, which a metric may close or draw on: the images themselves are recorded.

    Metrics keep what they have read of an image, such as its faces, for as long as the image object lives. So all get
    the same copies, except of those that another metric has changed.

    Attributes:
        places: the keys of the images, in order.
    """

    def __init__(self, images: Mapping[int, Image]) -> None:
        self.places, self._images = list(images), list(images.values())
        self._copies = [image.copy() for image in self._images]

    def copies(self) -> list[Image]:
        """The copies for the next metric."""
        pairs = zip(self._copies, self._images, strict=True)
        self._copies = [copy if _is_same(copy, image) else image.copy() for copy, image in pairs]
        return list(self._copies)


def _is_same(copy: Image, image: Image) -> bool:
    """Whether a copy still has the pixels of its image."""
    try:
        return copy.size == image.size and ImageChops.difference(copy, image).getbbox() is None
    except Exception:  # it was closed, or has another mode
        return False
