"""RegMean++: RegMean, block by block, on what the merged blocks before put out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.linear_inputs import input_moments
from mergerisk.merging.regmean import Regression
from mergerisk.models.inside.blocks import block_norms
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged
    from mergerisk.models.core.encoder import Encoder, State


@hyperparameters
class RegMeanPlusPlus(LearnedMerging):
    """RegMean++ (Nguyen et al. 2025, arXiv 2508.03121): the equation of :class:`RegMean`, with other
    inputs. A block of the merge reads what the merged blocks before it put out, not what the expert's do. So
    blocks are merged in their order, and the Xt of a block are what the layers of expert t's block read behind the
    merged blocks before it. All other tensors, biases too, are averaged.

    Blocks are pre-norm transformer blocks, told by their two layer norms; within one, each layer reads what its
    expert's layers before it put out, here as in the authors' code. A linear layer outside of blocks is a block of
    its own. The authors' code and FusionBench know CLIP's blocks alone, and leave what comes behind them, the last
    norm say, as it was pretrained. A weight that is tied between blocks is averaged.

    No expert is ever in memory, only a block of it. Images pass through the model anew for every block, up to that
    block.

    Attributes:
        examples: images read per task, chosen at random; all of them if there are fewer. The authors' value.
        non_diagonal: α, what the entries of Gt off its diagonal are multiplied by; 0.95 is the authors'.
    """

    stream: ClassVar[str] = "regmean_plus_plus"

    examples: PositiveInt = 256
    non_diagonal: Annotated[float, Field(ge=0, le=1)] = 0.95

    def held(self, count: int) -> float:
        """The average, the merge as it grows, and a block's Gram matrices in double precision."""
        del count
        return 4.5

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        # Of twelve blocks, half are passed in the mean.
        return {"forward": 6 * sum(min(pool, self.examples) for pool in pools)}

    def learn(self, lesson: Lesson) -> Merged:
        merged = lesson.averages(lesson.pretrained)
        # A model of its own, whose tensors are written to.
        encoder = lesson.base.with_state({name: tensor.clone() for name, tensor in merged.items()})
        images = {task: lesson.chosen_images(task, self.examples) for task in lesson.states}
        blocks = _blocks(encoder, next(iter(images.values()))[:1])
        weights = [{lesson.tied.get(name, name) for name in block.names} for block in blocks]
        for position, block in enumerate(blocks):
            elsewhere = set().union(*weights[:position], *weights[position + 1 :])
            regression = Regression(merged, self.non_diagonal)
            for task, tuned in lesson.states.items():
                _write(encoder, {name: tuned[name] for name in block.names})
                within, until = [block.module], block.module if block.calls == 1 else None
                own = input_moments(encoder, images[task], lesson.tied, within=within, until=until)
                for name in own.keys() - elsewhere:
                    regression.add(name, own[name], tuned[name])
            merged |= regression.solved(len(lesson.states))
            _write(encoder, {name: merged[lesson.tied.get(name, name)] for name in block.names})
        return lesson.merged(merged)


@dataclass(frozen=True)
class _Block:
    """What is merged at once.

    Attributes:
        module: the block, or a linear layer.
        names: of its tensors.
        calls: how often it runs when the model does.
    """

    module: nn.Module
    names: Sequence[str]
    calls: int


def _blocks(encoder: Encoder, image: torch.Tensor) -> list[_Block]:
    """Blocks and linear layers outside of them, in the order in which they run."""
    backbone = encoder.backbone
    found = list(block_norms(backbone))
    inside = {part for block in found for part in block.modules()}
    for module in backbone.modules():
        if module not in inside and isinstance(module, nn.Linear | nn.MultiheadAttention):
            found.append(module)
            inside.update(module.modules())
    paths = {module: path for path, module in backbone.named_modules()}
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, arguments: tuple[object, ...]) -> None:  # noqa: ARG001
        calls[module] = calls.get(module, 0) + 1

    handles = [module.register_forward_pre_hook(count) for module in found]
    try:
        with torch.no_grad():
            encoder(image.to(encoder.mean.device))
    finally:
        for handle in handles:
            handle.remove()
    return [
        _Block(module, [f"{paths[module]}.{name}".lstrip(".") for name in module.state_dict()], times)
        for module, times in calls.items()
    ]


def _write(encoder: Encoder, tensors: State) -> None:
    """Put values into an encoder's own memory."""
    own = encoder.state()
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
