"""Attacks that change the gradient inside vision transformers."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.errors import UserError
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.inside.attention import AttentionMaps
from mergerisk.models.inside.blocks import block_norms, branch_outputs, check_pre_norm
from mergerisk.models.inside.class_token import all_tokens
from mergerisk.models.inside.hooks import changed_gradient, hooked
from mergerisk.validation import Share, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle, Run

Tokens = Literal["inputs", "outputs"]
"""See :func:`token_places`."""


class _AttentionAttack(MIFGSM):
    """MI-FGSM on a classifier whose attention maps are changed on the way."""

    @abstractmethod
    def change_map(self, maps: torch.Tensor) -> torch.Tensor:
        """A map (N × heads × queries × keys) → the same values, with another gradient."""

    def attention_maps(self) -> AttentionMaps:
        """Within it, they are changed."""
        return AttentionMaps(self.change_map)

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        check_attention(classifier, image)

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        with all_tokens(problem.classifier):
            yield asked_within(self.attention_maps, self.loss_gradient(problem, problem.classifier))


def asked_within(context: Callable[[], AbstractContextManager[object]], oracle: Oracle) -> Oracle:
    """``oracle``, asked within a context of its own each time: what is attacked is still seen as what it is, an
    ensemble that averages losses, or a classifier that is watched."""

    def gradient(images: torch.Tensor) -> torch.Tensor:
        with context():
            return oracle(images)

    return gradient


def count_maps(classifier: nn.Module, image: torch.Tensor) -> int:
    """How many attention maps one forward pass makes."""
    attention = AttentionMaps(lambda maps: maps)
    with torch.no_grad(), attention:
        classifier(image)
    return attention.met


def check_attention(classifier: nn.Module, image: torch.Tensor) -> None:
    """See that attention maps can be reached.

    Raises:
        UserError: none is made.
    """
    if not count_maps(classifier, image):
        raise UserError(
            f"no attention map was met in {type(classifier).__name__}: the attack is for vision transformers "
            "whose attention goes through scaled_dot_product_attention, nn.MultiheadAttention or a softmax"
        )


@hyperparameters
class PNAPatchOut(_AttentionAttack):
    """Pay no attention, and PatchOut (Wei et al. 2022, arXiv 2109.04176).

    Attention maps are constants to the gradient. At each step, an image's perturbation is seen on a random share
    of its patches only, so the gradient is zero on the others. The paper keeps 130 of 196 patches.

    Attributes:
        kept: share of the patches that keep the perturbation at a step; at least one does.
        regularization: λ of the paper's λ‖x_adv − x‖₂, which the loss gains; its 0.1. Over an image's kept patches
            here; the authors' code takes one norm over a whole batch and all its patches.
        patch_size: side in pixels of the attacked image; None for the surrogate's own patches, as they lie on the
            attacked image.
    """

    kept: Annotated[float, Field(gt=0, le=1)] = 0.7
    regularization: NonNegativeFloat = 0.1
    patch_size: PositiveInt | None = None

    def change_map(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.detach()

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        super().check(classifier, image)
        patch_numbers(classifier, image, self.patch_size)

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        images = run.problem.images
        mask = self._mask(run.problem)
        change = (point - images) * mask
        length: torch.Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
        away = change / length.where(length > 0, 1.0)
        return run.gradient(images + change) * mask + self.regularization * away

    def _mask(self, problem: Problem) -> torch.Tensor:
        """N × 1 × H × W: 1 on the patches that keep their perturbation, else 0."""
        patches = patch_numbers(problem.classifier, problem.images, self.patch_size)
        count = int(patches.max()) + 1
        draws = problem.random.uniform(count, like=problem.images.double())
        kept = draws.argsort(dim=1).argsort(dim=1) < max(1, round(self.kept * count))
        mask: torch.Tensor = kept[:, patches].to(problem.images)
        return mask[:, None]


def patch_numbers(classifier: nn.Module, images: torch.Tensor, patch_size: int | None) -> torch.Tensor:
    """int64, H × W: the number of the patch that each pixel is in, row by row.

    Args:
        classifier: a vision transformer.
        images: N × C × H × W, those attacked.
        patch_size: side of a patch in their pixels; None for the classifier's own, as they lie on these images.

    Raises:
        UserError: the classifier does not say how large its patches are.
    """
    sides = images.shape[-2:]
    patch, seen = (patch_size, sides) if patch_size else own_patches(classifier)
    # In whole numbers, since patches may not end between two of the attacked pixels.
    rows, columns = (
        torch.arange(side, device=images.device) * whole // (patch * side)
        for side, whole in zip(sides, seen, strict=True)
    )
    numbers: torch.Tensor = rows[:, None] * (columns.max() + 1) + columns
    return numbers


def own_patches(classifier: nn.Module) -> tuple[int, tuple[int, int]]:
    """Side of a vision transformer's patches, and height and width of the images it cuts into them, in pixels."""
    sizes = [module.image_size for module in classifier.modules() if isinstance(module, Encoder)]
    for module in classifier.modules():
        config: Any = getattr(module, "config", None)
        patch = _pair(getattr(config, "patch_size", None))
        seen = _pair(sizes[0] if sizes else getattr(config, "image_size", None))
        if patch and seen and patch[0] == patch[1]:
            return patch[0], seen
    raise UserError(
        f"{type(classifier).__name__} has no config that says patch_size and image_size; set the attack's "
        "patch_size, in pixels of the attacked images"
    )


def _pair(size: Any) -> tuple[int, int] | None:
    """A configuration's size, one number or two."""
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) and len(size) == 2 else None


@hyperparameters
class TGR(_AttentionAttack):
    """Token gradient regularization (Zhang et al. 2023, arXiv 2303.15754).

    On the way back through every block, gradients are shrunk and their extreme tokens removed: of the attention
    map, the query and the key of the largest and of the smallest entry, per head; of the tokens that queries, keys
    and values, or the MLP, are made of, the tokens with the largest and the smallest value, per channel. Largest
    and smallest go by signed values, per image. Public code handles a batch of one only.

    Attributes:
        attention: factor of the attention map's gradient.
        qkv: of that of the tokens that enter queries, keys and values: what the norm before attention puts out.
        mlp: of that of the tokens that enter the MLP: what the norm before it puts out.
        maps: what is meant by the attention map: the ``weights`` of the values, as in the paper; or the ``scores``
            before the softmax, where the hook of public code, the authors' included, acts (it is set on a dropout
            layer that does nothing, and so reaches the step before).
        tokens: where their gradient is changed: where they enter, as the paper has it (``inputs``); or at what the
            projections to queries, keys and values, and the MLP, put out (``outputs``), as in public code.
    """

    attention: Share = 0.25
    qkv: Share = 0.75
    mlp: Share = 0.5
    maps: Literal["weights", "scores"] = "weights"
    tokens: Tokens = "inputs"

    def attention_maps(self) -> AttentionMaps:
        return AttentionMaps(self.change_map, scores=self.maps == "scores")

    def change_map(self, maps: torch.Tensor) -> torch.Tensor:
        if maps.requires_grad:
            maps.register_hook(partial(_without_extreme_entries, self.attention))
        return maps

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        super().check(classifier, image)
        if not block_norms(classifier):
            raise UserError(
                f"{type(classifier).__name__} has no transformer blocks with a norm before each branch"
            )
        check_pre_norm(classifier, image)
        token_places(classifier, image, self.tokens)

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        places = token_places(problem.classifier, problem.images[:1], self.tokens)
        hooks = [
            (module, changed_gradient(partial(_without_extreme_tokens, self.share(kind))))
            for kind, modules in places.items()
            for module in modules
        ]
        with hooked(hooks), super().surrogate(problem) as oracle:
            yield oracle

    def share(self, kind: str) -> float:
        """The factor of tokens' gradients at places of a kind; see :func:`token_places`."""
        return self.mlp if kind == "mlp" else self.qkv


def token_places(model: nn.Module, image: torch.Tensor, tokens: Tokens) -> dict[str, list[nn.Module]]:
    """The modules of pre-norm transformer blocks whose outputs carry the gradients of tokens, by kind, in the
    blocks' order.

    Args:
        model: a vision transformer.
        image: 1 × C × H × W.
        tokens: ``inputs``: the norms, kinds ``qkv`` and ``mlp``; ``outputs``: what makes queries, keys and values
            of them, kind ``qkv``, or ``qkv 0``, ``qkv 1`` … where several layers do, and ``mlp``.

    Raises:
        UserError: a block's outputs cannot be reached.
    """
    places: dict[str, list[nn.Module]] = {}
    if tokens == "inputs":
        for before, after in block_norms(model).values():
            places.setdefault("qkv", []).append(before)
            places.setdefault("mlp", []).append(after)
        return places
    for projections, mlp in branch_outputs(model, image).values():
        for number, projection in enumerate(projections):
            kind = f"qkv {number}" if len(projections) > 1 else "qkv"
            places.setdefault(kind, []).append(projection)
        places.setdefault("mlp", []).append(mlp)
    return places


def _without_extreme_entries(share: float, gradient: torch.Tensor) -> torch.Tensor:
    """An attention map's gradient (… × queries × keys), shrunk, without the rows and columns of its extremes."""
    keys = gradient.shape[-1]
    scaled = share * gradient
    flat = scaled.flatten(-2)
    extremes = torch.stack([flat.argmax(-1), flat.argmin(-1)], dim=-1)
    row = (extremes // keys)[..., None, :] == torch.arange(gradient.shape[-2], device=flat.device)[:, None]
    column = (extremes % keys)[..., None, :] == torch.arange(keys, device=flat.device)[:, None]
    return scaled.masked_fill(row.any(-1)[..., :, None] | column.any(-1)[..., None, :], 0.0)


def _without_extreme_tokens(share: float, gradient: torch.Tensor) -> torch.Tensor:
    """Tokens' gradient (N × tokens × width), shrunk, without each channel's extremes."""
    scaled = share * gradient
    extremes = torch.cat([scaled.argmax(1, keepdim=True), scaled.argmin(1, keepdim=True)], dim=1)
    return scaled.scatter(1, extremes, 0.0)
