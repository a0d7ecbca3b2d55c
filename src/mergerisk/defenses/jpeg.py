"""Images compressed before the model sees them."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from mergerisk.defenses._soft_jpeg import soft_jpeg
from mergerisk.defenses.adaptive import valued
from mergerisk.defenses.inputs import InputDefense, as_bytes, in_cache, with_no_gradient
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from numpy.typing import NDArray


@hyperparameters
class JPEG(InputDefense):
    """JPEG compression (Guo et al. 2018, arXiv 1711.00117, section 3; Dziugaite et al. 2016, arXiv 1608.00853):
    pixels, rounded to bytes, are written and read by Pillow, with its defaults but for the quality.

    An attacker who knows it follows the gradient of a JPEG whose rounding is smooth (Shin and Song 2017; see
    :func:`~mergerisk.defenses._soft_jpeg.soft_jpeg`).

    Attributes:
        quality: Pillow's, 1 to 100; the paper's is 75.
    """

    quality: Annotated[int, Field(ge=1, le=100)] = 75

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """The gradient by the images is zero.

        Raises:
            UserError: images that are neither grey nor of three channels.
        """
        if images.shape[1] not in (1, 3):
            raise UserError(f"jpeg: images must have 1 or 3 channels, got {images.shape[1]}")
        seen = torch.empty(images.shape, dtype=images.dtype)
        for picture, place in zip(as_bytes(images).cpu(), seen, strict=True):
            found = self._compressed(picture.movedim(0, -1).contiguous().numpy())
            place.copy_(torch.from_numpy(found).movedim(-1, 0)).div_(255)
        seen = seen.to(images.device)
        return with_no_gradient(seen, images) if images.requires_grad else seen

    def followed(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            seen = self.transform(images)
        return valued(in_cache(lambda part: soft_jpeg(part, self.quality), images), seen)

    def _compressed(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """H × W × C, through a file in memory."""
        file = BytesIO()
        grey = picture.shape[-1] == 1
        Image.fromarray(picture[..., 0] if grey else picture).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as read:
            return np.array(read).reshape(picture.shape)
