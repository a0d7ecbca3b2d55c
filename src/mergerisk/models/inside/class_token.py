"""The last block of a vision transformer whose features are the class token: computed for that token alone.

What the block makes of the other tokens is never read. Its keys and values are all tokens'; its queries, its
projection and its MLP, most of its work, are needed for one. The result is the whole block's up to rounding.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from mergerisk.models.inside.hooks import hooked

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class ClassTokenBlock(nn.Module):
    """A pre-norm block of transformers that within :func:`class_token_alone` puts out N × 1 × width.

    It does so where nobody can tell. Everywhere else, and where a part of it is hooked or was exchanged, or
    attention is masked or not PyTorch's own, it computes all tokens, as the class that it stands before does. Made
    by :func:`may_be_alone`, which gives a block that was loaded this class before its own.
    """

    alone = False
    attention_name: str
    norm_names: tuple[str, str]
    own_parts: tuple[type[nn.Module], ...]

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **named: Any
    ) -> torch.Tensor:
        """Tokens, N × tokens × width, the class token first → N × 1 × width, or all of them."""
        attention: Any = getattr(self, self.attention_name)
        usual = attention_mask is None and attention.config._attn_implementation == "sdpa"
        if not (self.alone and usual and self._untouched()):
            tokens: torch.Tensor = super().forward(hidden_states, attention_mask, **named)
            return tokens
        before, after = (getattr(self, name) for name in self.norm_names)
        normed = before(hidden_states)
        first = hidden_states[:, 0]
        query, key, value = (
            projection(part).unflatten(-1, (-1, attention.head_dim))
            for projection, part in zip(
                (getattr(attention, name) for name in _PROJECTIONS), (normed[:, 0], normed, normed), strict=True
            )
        )
        seen = F.scaled_dot_product_attention(
            query.unsqueeze(-2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.head_dim**-0.5
        )
        first = first + _output(attention)(seen.flatten(1))
        mlp: Any = self.mlp
        alone: torch.Tensor = (first + mlp(after(first))).unsqueeze(1)
        return alone

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # Its class is made as it is needed: pickle could look it up in no module.
        own = type(self).__mro__[type(self).__mro__.index(ClassTokenBlock) + 1]
        return _made_again, (own,), self.__dict__

    def _untouched(self) -> bool:
        """Whether the block's parts are those that it was loaded with, and nobody watches them."""
        parts = tuple(self.modules())
        return tuple(map(type, parts[1:])) == self.own_parts and not any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
            for part in parts
        )


def may_be_alone(block: Any) -> None:
    """From now on ``block``, the last of a backbone of which only the class token is read, can compute that alone.

    Blocks of another form than ViT's and CLIP's in transformers, and those with dropout, stay as they are.
    """
    children = {name: child for name, child in block.named_children() if not isinstance(child, nn.Dropout)}
    norms = tuple(name for name, child in children.items() if isinstance(child, nn.LayerNorm))
    others = tuple(name for name in children if name not in norms and name != "mlp")
    if len(norms) != 2 or len(others) != 1 or "mlp" not in children:
        return
    attention = children[others[0]]
    projections = [getattr(attention, name, None) for name in _PROJECTIONS]
    if not all(isinstance(part, nn.Linear) for part in (*projections, _output(attention))):
        return
    if not hasattr(attention, "head_dim") or not hasattr(attention, "config") or _drops(block, attention):
        return
    # Of CLIP's norms the second is registered after the MLP, of ViT's before it: their order is the same.
    kind: Any = type(block)
    block.__class__ = _before(kind)
    block.attention_name = others[0]
    block.norm_names = norms
    block.own_parts = tuple(map(type, block.modules()))[1:]


@contextmanager
def class_token_alone(backbone: nn.Module) -> Iterator[None]:
    """Within it the last block of ``backbone`` computes the class token alone: for features that read no other."""
    blocks = [part for part in backbone.modules() if isinstance(part, ClassTokenBlock)]
    for block in blocks:
        block.alone = True
    try:
        yield
    finally:
        for block in blocks:
            block.alone = False


@contextmanager
def all_tokens(model: nn.Module) -> Iterator[None]:
    """Within it features are made of all tokens all the same: for whoever reads on the way what the backbone puts
    out, or attention maps, without a hook on the block."""
    with hooked((part, lambda *_: None) for part in model.modules() if isinstance(part, ClassTokenBlock)):
        yield


@cache
def _before(kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with :class:`ClassTokenBlock` before it, under its own name."""
    return type(kind.__name__, (ClassTokenBlock, kind), {})


def _made_again(kind: Any) -> nn.Module:
    """A block that stands before ``kind``, without its state: what pickle and deepcopy begin with."""
    made = _before(kind)
    return made.__new__(made)


def _output(attention: nn.Module) -> Any:
    return getattr(attention, "o_proj", getattr(attention, "out_proj", None))


def _drops(block: nn.Module, attention: nn.Module) -> bool:
    own = [getattr(attention, name, 0.0) for name in ("attention_dropout", "dropout")]
    return any(part.p > 0 for part in block.modules() if isinstance(part, nn.Dropout)) or any(
        isinstance(share, float) and share > 0 for share in own
    )
