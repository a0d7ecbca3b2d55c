"""The attention maps inside a model, whichever way it computes them."""

from __future__ import annotations

import math
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)


class AttentionMaps(TorchFunctionMode):
    """Within it, ``change`` is applied to every attention map (… × queries × keys) before it weighs the values.

    Fused attention never shows its map, so that hooks on modules would fire without effect, or not at all. So the
    functions are replaced: ``F.scaled_dot_product_attention`` by its definition, also within
    ``nn.MultiheadAttention``; and a softmax of four dimensions over the last, as eager attention takes it, is
    followed by ``change``.

    Args:
        change: a map → a map of the same shape.
        scores: whether ``change`` is applied to the scores instead, before their softmax (masks added).

    Attributes:
        met: how many maps there were.
    """

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor], *, scores: bool = False) -> None:
        super().__init__()
        self.change = change
        self.scores = scores
        self.met = 0

    def __torch_function__(
        self, function: Any, types: object, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        # In here the mode is off: what is called is seen by PyTorch alone.
        named = named or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*arguments, **named)
        if function is F.multi_head_attention_forward:
            return self._multi_head(*arguments, **named)
        if function in _SOFTMAX and arguments and arguments[0].ndim == 4:
            dim = named.get("dim", arguments[1] if len(arguments) > 1 else None)
            if dim in (-1, 3):
                return self._map(arguments[0], lambda scores: function(scores, *arguments[1:], **named))
        return function(*arguments, **named)

    def _map(self, scores: torch.Tensor, softmax: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The attention map of scores, with the change where it belongs."""
        self.met += 1
        return softmax(self.change(scores)) if self.scores else self.change(softmax(scores))

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """``F.scaled_dot_product_attention`` as its documentation defines it."""
        if dropout_p > 0:
            raise UserError("attention drops entries at random in evaluation mode; give it dropout_p=0 there")
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            allowed = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if allowed else scores + attn_mask
        return self._map(scores, lambda scores: scores.softmax(dim=-1)).to(value.dtype) @ value

    def _multi_head(self, *arguments: Any, **named: Any) -> Any:
        """``F.multi_head_attention_forward``, with the attention in it replaced.

        Called as it is, it would either come back here or take the fused path out of sight; so a copy is called
        that looks up its parts here.
        """
        original = F.multi_head_attention_forward
        parts = {
            "has_torch_function": lambda tensors: False,  # noqa: ARG005
            "scaled_dot_product_attention": self._attend,
            "softmax": lambda scores, dim: self._map(scores, lambda scores: scores.softmax(dim)),
        }
        copy = FunctionType(original.__code__, original.__globals__ | parts, argdefs=original.__defaults__)
        return copy(*arguments, **named)
