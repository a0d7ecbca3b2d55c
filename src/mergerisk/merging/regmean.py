"""RegMean: linear layers that reproduce the experts' outputs best."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from mergerisk.merging.learned import LearnedMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged
    from mergerisk.models.core.encoder import Encoder, State

_BATCH = 32
_RIDGE = 1e-10
"""Relative to a diagonal of ones: far above what rounding can take from an eigenvalue, far below what matters."""


@hyperparameters
class RegMean(LearnedMerging):
    """For each linear layer, the weight that comes nearest, in least squares, to the experts' outputs on their
    own inputs: Wᵀ = (Σ Gt)⁻¹ Σ Gt Wtᵀ, with Gt = XᵀX / N over all N tokens that reach the layer of expert t on
    unlabelled images of its task (Jin et al. 2023, arXiv 2212.09849, equation 2; section 3.3 for
    ``non_diagonal``). All other tensors, biases too, are averaged.

    The equation is solved, not inverted, for the distance of W to the average of the Wt, with a ridge of 1e-10 of
    each input's mean square. Where Σ Gt is singular, W is thus the solution nearest to the average (weights
    measured by their input's root mean square); weights of inputs that no image activates are the average. All of
    this in double precision: Gt's condition number is X's squared, more than single precision has digits for.

    Linear layers are ``nn.Linear``, packed queries, keys and values included, and both projections of
    ``nn.MultiheadAttention``, in self-attention. That module never calls its output projection as a layer, so a
    copy without one tells what its inputs are. A layer that some expert never calls is averaged.

    Experts are in memory one at a time; what the equation needs of all of them is Gt, in × in, and Gt Wtᵀ of every
    layer, in double precision, once summed and once of the expert at hand.

    Attributes:
        examples: images read per task, chosen at random; all of them if there are fewer. FusionBench's value.
        non_diagonal: α, what the entries of Gt off its diagonal are multiplied by. 1 is plain least squares; 0
            averages each input's weights by its mean square. FusionBench takes 0.95 for CLIP.
    """

    stream: ClassVar[str] = "regmean"

    examples: PositiveInt = 256
    non_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95

    def held(self, count: int) -> float:
        """Gram matrices of all layers, in double precision, of one expert and summed."""
        del count
        return 14.0

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        return {"forward": sum(min(pool, self.examples) for pool in pools)}

    def learn(self, lesson: Lesson) -> Merged:
        averages = lesson.averages(lesson.pretrained)
        grams: State = {}
        targets: State = {}
        seen: dict[str, int] = {}
        for task, tuned in lesson.states.items():
            own = _grams(lesson.experts[task], lesson.chosen_images(task, self.examples), lesson.tied)
            for name in list(own):
                gram = own.pop(name)
                diagonal = gram.diagonal().clone()
                gram.mul_(self.non_diagonal).diagonal().copy_(diagonal)
                target = gram @ (tuned[name].double() - averages[name].double()).T
                grams[name] = grams[name].add_(gram) if name in grams else gram
                targets[name] = targets[name].add_(target) if name in targets else target
                seen[name] = seen.get(name, 0) + 1
        merged = dict(averages)
        for name, count in seen.items():
            if count == len(lesson.experts):
                correction = _solve(grams.pop(name), targets.pop(name)).T
                merged[name] = (averages[name].double() + correction).to(averages[name].dtype)
        return lesson.merged(merged)


def _grams(encoder: Encoder, images: torch.Tensor, origin: Mapping[str, str]) -> State:
    """By name of a linear layer's weight, XᵀX / N of its inputs, in × in, in double precision.

    Args:
        encoder: left as it is.
        images: N × 3 × H × W.
        origin: other names of tied weights → the one that the inputs of all their layers are counted under.
    """
    # A twin, so that no hook is ever left on the expert, and none of its layers is in training mode.
    twin = encoder.with_state(encoder.state())
    known = twin.state()
    sums: State = {}
    counts: dict[str, int] = {}

    def add(weight: str, inputs: torch.Tensor) -> None:
        if weight in known and inputs.numel():
            weight = origin.get(weight, weight)
            tokens = inputs.reshape(-1, inputs.shape[-1]).double()
            gram = tokens.T @ tokens
            sums[weight] = sums[weight].add_(gram) if weight in sums else gram
            counts[weight] = counts.get(weight, 0) + len(tokens)

    def linear(prefix: str, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001
        add(f"{prefix}weight", args[0])

    def attention(
        prefix: str,
        bare: nn.Module,
        module: nn.Module,  # noqa: ARG001  # a hook's signature
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        if named["query"] is named["key"] is named["value"]:
            add(f"{prefix}in_proj_weight", named["query"])
            add(f"{prefix}out_proj.weight", bare(*args, **kwargs)[0])

    for name, module in twin.backbone.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            hook = partial(attention, prefix, _without_projection(module))
            module.register_forward_pre_hook(hook, with_kwargs=True)
        elif isinstance(module, nn.Linear):
            module.register_forward_pre_hook(partial(linear, prefix))
    with torch.no_grad():
        for batch in images.split(_BATCH):
            twin(batch.to(twin.mean.device))
    return {name: total.div_(counts[name]) for name, total in sums.items()}


def _without_projection(attention: nn.MultiheadAttention) -> nn.Module:
    """A copy that puts out what its output projection would be given."""
    bare = copy.deepcopy(attention)
    nn.init.eye_(bare.out_proj.weight)
    if bare.out_proj.bias is not None:
        nn.init.zeros_(bare.out_proj.bias)
    return bare


def _solve(gram: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """X (in × out) with ``gram`` X = ``target``; 0 for inputs and directions of which ``gram`` knows nothing."""
    # Scaled to a diagonal of ones, so that the ridge is as small for large inputs as for small ones.
    diagonal = gram.diagonal()
    scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)[:, None]
    scaled = scale * gram * scale.T
    scaled.diagonal().add_(_RIDGE)
    return scale * torch.cholesky_solve(scale * target, torch.linalg.cholesky(scaled))
