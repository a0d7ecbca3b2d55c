"""What a diagnostic is asked about: models, images, budget; checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from mergerisk.attacks.attack import Pool
from mergerisk.attacks.budget import ball
from mergerisk.attacks.given import check_images, check_indices, check_labels, first_look
from mergerisk.causes.probe import Batch, encoder_of
from mergerisk.errors import UserError
from mergerisk.memory import fitting, graph_bytes
from mergerisk.models.core.checks import precision_named
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.inside.hooks import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mergerisk.attacks.budget import Norm
    from mergerisk.attacks.given import Labels
    from mergerisk.causes.probe import Reads
    from mergerisk.merging.material import Tensors

    Model = nn.Module | Tensors
    """A classifier or an encoder; for diagnostics that read weights alone, tensors by name do."""

Need = Literal["surrogate", "images", "labels", "base", "experts", "coefficients"]
"""What a call may have to give besides the target."""


@dataclass(frozen=True)
class Given:
    """The arguments of a diagnostic's call.

    Attributes:
        target: the model that is attacked.
        surrogate: the model that attacks are made on; None for what does not compare with one.
        images: N × C × H × W in [0, 1]; of no images where none are read.
        labels: int64, N.
        identities: of the images.
        epsilon: budget in pixel units.
        norm: what it bounds.
        seed: of everything random.
        base: the pretrained model that both come from.
        experts: name → expert that was merged.
        coefficients: name → λ of a linear merge θ0 + Σ λt τt.
        batch_size: images at a time, at most.
    """

    target: Model
    surrogate: Model | None = None
    images: torch.Tensor = field(default_factory=lambda: torch.empty(0, 3, 1, 1))
    labels: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    identities: tuple[int, ...] = ()
    epsilon: float = 4 / 255
    norm: Norm = "linf"
    seed: int = 0
    base: Model | None = None
    experts: Mapping[str, Model] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 64

    def batch(self, start: int, stop: int) -> Batch:
        """The images ``start`` … ``stop``."""
        part = slice(start, stop)
        return Batch(
            self.images[part],
            self.labels[part],
            self.identities[part],
            self.epsilon,
            self.norm,
            self.seed,
            self.pool,
        )

    @cached_property
    def pool(self) -> Pool:
        """All the images in the order of their identities, so that what is drawn from them depends on no order."""
        order = sorted(range(len(self.identities)), key=self.identities.__getitem__)
        if order == list(range(len(order))):
            return Pool(self.images, self.labels)
        return Pool(self.images[order], self.labels[order])


def checked(
    cause: str,
    needs: frozenset[Need],
    *,
    target: object,
    surrogate: object,
    images: torch.Tensor | None,
    labels: Labels | None,
    indices: Sequence[int] | torch.Tensor | None,
    epsilon: float,
    norm: Norm,
    seed: int,
    base: object,
    experts: Mapping[str, object] | None,
    coefficients: Mapping[str, float] | None,
    batch_size: int,
) -> Given:
    """The arguments of a call, checked as far as they can be without running a model.

    Raises:
        UserError: something that the diagnostic needs is not given, or is out of range.
    """
    present = {
        "surrogate": surrogate,
        "images": images,
        "labels": labels,
        "base": base,
        "experts": experts,
        "coefficients": coefficients,
    }
    lacking = [name for name in present if name in needs and present[name] is None]
    if lacking:
        raise UserError(f"{cause} needs {' and '.join(lacking)}, which the call does not give")
    if batch_size < 1:
        raise UserError(f"batch_size must be 1 or more, got {batch_size}")
    pictures = torch.empty(0, 3, 1, 1) if images is None else check_images(images)
    if "images" in needs and not len(pictures):
        raise UserError(f"{cause}: there are no images")
    if "experts" in needs and not experts:
        raise UserError(f"{cause}: there are no experts")
    ball(norm, pictures[:1], epsilon)
    if coefficients is not None and coefficients.keys() != (experts or {}).keys():
        raise UserError(
            f"{cause}: coefficients must name each expert once: {', '.join(experts or {})}; "
            f"they name {', '.join(coefficients)}"
        )
    given = (
        check_labels("labels", labels, pictures)
        if labels is not None
        else torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device)
    )
    return Given(
        target=target,  # type: ignore[arg-type]  # checked by what reads it
        surrogate=surrogate,  # type: ignore[arg-type]
        images=pictures,
        labels=given,
        identities=tuple(check_indices(indices, len(pictures))),
        epsilon=epsilon,
        norm=norm,
        seed=seed,
        base=base,  # type: ignore[arg-type]
        experts=experts or {},  # type: ignore[arg-type]
        coefficients=coefficients or {},
        batch_size=batch_size,
    )


def lacking(model: object, reads: Collection[Reads], who: str) -> str | None:
    """Why a model cannot answer what is read of it, as far as can be told without running it; None if it can.

    Args:
        model: a classifier, an encoder, or something that only answers with labels.
        reads: what is read of it.
        who: how the answer calls it.
    """
    if "weights" in reads and not isinstance(model, nn.Module | Mapping):
        return f"{who} is a {type(model).__name__}, whose weights cannot be read"
    if not isinstance(model, nn.Module):
        if not {"labels", "weights"}.issuperset(reads):
            return f"{who} is a {type(model).__name__}, which has no {_wanted(reads)} to read"
        return None
    if {"features", "blocks"} & set(reads):
        try:
            encoder = encoder_of(model, who)
        except UserError as error:
            return str(error)
        if "blocks" in reads:
            try:
                transformer_blocks(encoder.backbone)
            except UserError:
                return (
                    f"{who} ({type(encoder.backbone).__name__}) has no list of blocks; blocks=False compares the "
                    "final features alone"
                )
    if {"logits", "gradients"} & set(reads) and isinstance(model, Encoder):
        return f"{who} is an encoder, which has no logits; give a mergerisk.Classifier(encoder, head)"
    return None


def _wanted(reads: Collection[Reads]) -> str:
    return "gradients" if "gradients" in reads else "features" if "features" in reads else "logits"


def look(model: object, reads: Collection[Reads], given: Given, cause: str, who: str) -> tuple[int, int | None]:
    """See on one image that a model can answer, how many images at a time fit into memory, and how many classes it
    has; None of an encoder.

    Raises:
        UserError: it cannot.
    """
    reason = lacking(model, reads, who)
    if reason is not None:
        raise UserError(f"{cause}: {reason}")
    assert isinstance(model, nn.Module)
    image = given.images[:1]
    with frozen(model, who), precision_named(model, image, who):
        if isinstance(model, Encoder):
            return fitting(graph_bytes(lambda: model(image.detach().requires_grad_())), image.device), None
        classes, most = first_look(model, image, given.labels, who)
        if "gradients" in reads and not model(image.detach().requires_grad_()).requires_grad:
            raise UserError(
                f"{cause}: {who}'s answer carries no gradient back to the pixels: its forward runs in no_grad or "
                "inference_mode, detaches, or leaves PyTorch; give the model inside it"
            )
    return most, classes
