"""WEMoE: MLPs that mix the experts' weights anew for every image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import skip_init

from mergerisk.errors import UserError
from mergerisk.merging.adamerging import draw, mean_entropy
from mergerisk.merging.averaging import TaskArithmetic
from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.material import Merged
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.models.core.encoder import Encoder, State


_WEIGHTS = 3 * 2**28
"""Bytes of images' own weights that are held at once; see ``_GRAPH`` of AdaMerging on why it is a constant."""


class MixtureMlp(nn.Module):
    """An MLP with the parameters θ0 + Σ g(x)t τt, where g is a router's mean over an image's tokens.

    Args:
        mlp: holds θ0.
        vectors: by the MLP's parameter names, task vectors, T × shape.
    """

    def __init__(self, mlp: nn.Module, vectors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.mlp = mlp
        self.names = list(vectors)
        for name, vector in vectors.items():
            self.register_buffer(_buffer(name), vector)
        tasks = len(next(iter(vectors.values())))
        width = next(parameter.shape[1] for parameter in mlp.parameters() if parameter.ndim == 2)
        # Not drawn: the method sets them, and must not touch the global generator.
        self.router = nn.Sequential(
            skip_init(nn.Linear, width, width), nn.ReLU(), skip_init(nn.Linear, width, tasks)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """N × tokens × width → N × tokens × width."""
        size = max(1, _WEIGHTS // max(1, self.bytes_per_image))
        return torch.cat([self._mixed(portion) for portion in tokens.split(size)])

    @property
    def bytes_per_image(self) -> int:
        """Of the weights that every image has for itself."""
        return sum(parameter.nbytes for parameter in self.mlp.parameters())

    def _mixed(self, tokens: torch.Tensor) -> torch.Tensor:
        shares = self.router(tokens).mean(dim=1)
        base = dict(self.mlp.named_parameters())
        mixed = {
            name: base[name] + torch.tensordot(shares, self.get_buffer(_buffer(name)), dims=1)
            for name in self.names
        }
        # One set of weights per image: a set per batch would let images change each other's predictions.
        # An MLP that draws when it is called draws for every image, as it does outside of a mixture.
        every = vmap(lambda own, image: functional_call(self.mlp, own, (image,)), randomness="different")
        outputs: torch.Tensor = every(mixed, tokens)
        return outputs


@hyperparameters
class WeMoE(LearnedMerging):
    """Weight-ensembling mixture of experts (Tang et al. 2024, arXiv 2402.00433, section 4), for transformers.

    All tensors are merged by task arithmetic, except the blocks' MLPs: their parameters are θ0 + Σ g(x)t τt for
    every image x, with a router g of two linear layers, averaged over the image's tokens. Routers start near g = λ
    and learn by minimising the tasks' summed mean softmax entropy on unlabelled images.

    FusionBench can average a router's answers over the batch, so that predictions depend on the company an image
    is in; here they never do.

    The merged model holds every expert's MLPs: no bound on experts in memory applies to what this method keeps.

    Attributes:
        scaling: λ, of task arithmetic and of the routers' start.
        steps: optimiser steps; each sees ``batch_size`` images of every task.
        learning_rate: of Adam.
    """

    changes_architecture: ClassVar[bool] = True
    stream: ClassVar[str] = "we_moe"

    scaling: Annotated[float, Field(ge=0)] = 0.3
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-4

    def held(self, count: int) -> float:
        """With the perceptrons of every expert."""
        return 3.0 + count

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        return {"training": self.steps * self.batch_size * len(pools)}

    def learn(self, lesson: Lesson) -> Merged:
        base, states, pretrained = lesson.base, list(lesson.states.values()), lesson.pretrained
        start = TaskArithmetic(scaling=self.scaling).merge_states(pretrained, states)
        start |= {name: pretrained[name].clone() for name in _mlp_parameters(base)}

        def vectors(name: str) -> torch.Tensor:
            return torch.stack([state[name] for state in states]).sub_(pretrained[name])

        encoder = _with_mixtures(base.with_state(start), vectors)
        self._start(encoder, lesson.draws("routers"))
        self._train(encoder, lesson)
        return Merged(encoder, encoder.state())

    def rebuild(self, base: Encoder, parts: State) -> Merged:
        prefix = f"{next(iter(_mlp_names(base)))}."
        count = next(len(tensor) for name, tensor in parts.items() if name.startswith(f"{prefix}{_buffer('')}"))
        pretrained = base.state()

        def nothing(name: str) -> torch.Tensor:  # zeros without memory, replaced by the parts
            return pretrained[name].new_zeros(()).expand(count, *pretrained[name].shape)

        encoder = _with_mixtures(base.with_state(pretrained), nothing)
        return Merged(encoder.with_state(parts), parts)

    def _start(self, encoder: Encoder, draws: torch.Generator) -> None:
        """Small weights, zero biases, but λ in the last: every image starts with nearly task arithmetic's MLPs."""
        with torch.no_grad():
            for router in _routers(encoder):
                for name, parameter in router.named_parameters():
                    if name.endswith("weight"):
                        parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.01)
                    else:
                        parameter.fill_(self.scaling if name == "2.bias" else 0.0)

    def _train(self, encoder: Encoder, lesson: Lesson) -> None:
        parameters = [p for router in _routers(encoder) for p in router.requires_grad_(True).parameters()]
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        draws = {task: lesson.draws(task) for task in lesson.experts}
        mixtures = [module for module in encoder.modules() if isinstance(module, MixtureMlp)]
        portion = max(1, _WEIGHTS // max(1, sum(mixture.bytes_per_image for mixture in mixtures)))
        for _ in range(self.steps):
            optimizer.zero_grad()
            # Task by task: every image has weights of its own, and those of all tasks need not be held at once.
            for task in lesson.experts:
                found = lesson.calibration[task]
                images = draw(found.images, self.batch_size, draws[task]).to(encoder.mean.device)
                for piece in images.split(portion):
                    (mean_entropy(found.head(encoder(piece))) * (len(piece) / len(images))).backward()
            optimizer.step()
        encoder.requires_grad_(False)


def _buffer(name: str) -> str:
    """Name of the buffer with an MLP parameter's task vectors; a buffer's name has no dots."""
    return f"vectors/{name.replace('.', '/')}"


def _mlp_names(encoder: Encoder) -> dict[str, nn.Module]:
    """The blocks' MLPs by name.

    Raises:
        UserError: a block has no ``mlp``.
    """
    found = {}
    for name, block in transformer_blocks(encoder.backbone).items():
        mlp = getattr(block, "mlp", None)
        if not isinstance(mlp, nn.Module):
            raise UserError(f"we_moe: {type(block).__name__} has no module called mlp to make a mixture of")
        found[f"{name}.mlp"] = mlp
    return found


def _routers(encoder: Encoder) -> list[nn.Sequential]:
    return [module.router for module in encoder.modules() if isinstance(module, MixtureMlp)]


def _mlp_parameters(encoder: Encoder) -> list[str]:
    """Names of the MLPs' parameters in the encoder's state."""
    return [f"{name}.{key}" for name, mlp in _mlp_names(encoder).items() for key, _ in mlp.named_parameters()]


def _with_mixtures(encoder: Encoder, vectors: Callable[[str], torch.Tensor]) -> Encoder:
    """``encoder``, which is changed: its MLPs mix their own parameters with task vectors (name in the encoder's
    state → T × shape). The routers are not yet set."""
    for name, mlp in _mlp_names(encoder).items():
        found = {key: vectors(f"{name}.{key}") for key, _ in mlp.named_parameters()}
        mixture = MixtureMlp(mlp, found).to(next(mlp.parameters()))
        encoder.backbone.get_submodule(name.rpartition(".")[0]).add_module("mlp", mixture)
    return encoder.requires_grad_(False).eval()
