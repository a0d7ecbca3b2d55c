"""A pretrained encoder, as a study names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergerisk.models.sources.loading import backbone_identity
from mergerisk.study.keyed import Keyed, unkeyed

if TYPE_CHECKING:
    from mergerisk.models.core.stated import StatedPreprocessing
    from mergerisk.store.keys import Json


@dataclass(frozen=True)
class Backbone(Keyed):
    """A pretrained encoder.

    Attributes:
        identity: what its weights, its size of images and its preprocessing are told by.
        name: where it is; see :func:`mergerisk.load_encoder`.
        image_size: side of the images it sees in pixels; None for that of its pretraining.
        preprocessing: instead of its own, or ``base``: its own for every model made from it.
        passes: the version of how a forward pass is computed, raised when its rounding changes: everything made
            with the backbone is then made anew.
    """

    kind: ClassVar[str] = "backbone"

    identity: Json
    name: str = unkeyed()
    image_size: int | None = unkeyed(default=None)
    preprocessing: StatedPreprocessing | Literal["base"] | None = unkeyed(default=None)
    passes: int = 2

    @classmethod
    def of(
        cls, name: str, image_size: int | None, preprocessing: StatedPreprocessing | Literal["base"] | None
    ) -> Backbone:
        """The backbone called ``name``, looked up.

        Raises:
            UserError: a file of it cannot be read.
        """
        identity: dict[str, Json] = {**backbone_identity(name)}
        if image_size is not None:
            identity["image_size"] = image_size
        if preprocessing is not None:
            identity["preprocessing"] = preprocessing if isinstance(preprocessing, str) else preprocessing.fields()
        return cls(identity, name, image_size, preprocessing)
