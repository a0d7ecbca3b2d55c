"""Naive attacks that reach into the surrogate: float64, one image at a time, the chain rule written out.

Networks are plain functions of state dicts under transformers' ViT and ResNet names, cut into a stem, blocks and a
top. Every block has its own ``backward``: vector-Jacobian products of its pieces, put together by hand, so that a
rule about gradients is applied where the paper says and not where a hook happens to fire.

Called as the attacks of :mod:`tests.naive.attacks`, with a :class:`Network` for the model.

Sources: PNA-PatchOut, Wei et al. 2022 (arXiv 2109.04176); TGR, Zhang et al. 2023 (2303.15754); SGM, Wu et al. 2020
(2002.05990), eq. 5; FIA, Wang et al. 2021 (2107.14185); NAA, Zhang et al. 2022 (2204.00008); ILPD, Li et al. 2023
(2304.13410), by the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.naive.attacks.loop import ForEachImage, Task, Trace, euclidean, iterate, views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

State = dict[str, Tensor]
ONE = torch.ones((), dtype=torch.float64)


def vjp(function: Callable[..., Tensor], points: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    """``cotangent`` times the Jacobian of ``function`` at ``points``, for each of them."""
    leaves = [point.detach().clone().requires_grad_(True) for point in points]
    return torch.autograd.grad(function(*leaves), leaves, cotangent)


# --- rules about gradients -------------------------------------------------------------------------------


def unchanged(gradient: Tensor) -> Tensor:
    return gradient


@dataclass(frozen=True)
class Rules:
    """What happens to a gradient where it leaves a piece of a block, on its way back to the pixels.

    ``attention_map``: heads×queries×keys; ``qkv_tokens`` and ``mlp_tokens``: tokens×width, as they enter the
    projections and the MLP; ``branch`` scales what comes back through a residual branch. Public code acts elsewhere:
    on ``scores`` before their softmax, on what the projections to queries, keys and values put out (``qkv_outputs``),
    on what the MLP puts out (``mlp_output``), and at a ResNet's ReLUs, see ``ResidualBlock.backward_at_relus``.
    """

    attention_map: Callable[[Tensor], Tensor] = unchanged
    qkv_tokens: Callable[[Tensor], Tensor] = unchanged
    mlp_tokens: Callable[[Tensor], Tensor] = unchanged
    branch: float = 1.0
    scores: Callable[[Tensor], Tensor] = unchanged
    qkv_outputs: Callable[[Tensor], Tensor] = unchanged
    mlp_output: Callable[[Tensor], Tensor] = unchanged
    relu: float | None = None


PLAIN = Rules()


def tame_map(gradient: Tensor, factor: float) -> Tensor:
    """Per head, without the rows and columns of the largest and the smallest entry; the rest times ``factor``."""
    tamed = gradient * factor
    for head, one in enumerate(gradient):
        columns = one.shape[1]
        for place in (int(one.argmax()), int(one.argmin())):
            tamed[head, place // columns, :] = 0.0
            tamed[head, :, place % columns] = 0.0
    return tamed


def tame_tokens(gradient: Tensor, factor: float) -> Tensor:
    """Per channel, without the tokens of the largest and the smallest value; the rest times ``factor``."""
    tamed = gradient * factor
    for channel in range(gradient.shape[1]):
        for token in (int(gradient[:, channel].argmax()), int(gradient[:, channel].argmin())):
            tamed[token, channel] = 0.0
    return tamed


# --- networks --------------------------------------------------------------------------------------------


class Block(Protocol):
    def forward(self, hidden: Tensor) -> Tensor: ...

    def backward(self, hidden: Tensor, cotangent: Tensor, rules: Rules) -> Tensor: ...


@dataclass(frozen=True)
class Network:
    """Pixels → stem → blocks → top → logits."""

    stem: Callable[[Tensor], Tensor]
    blocks: Sequence[Block]
    top: Callable[[Tensor], Tensor]

    def features(self, image: Tensor, block: int) -> Tensor:
        """What block number ``block`` puts out."""
        hidden = self.stem(image)
        for each in self.blocks[: block + 1]:
            hidden = each.forward(hidden)
        return hidden

    def finish(self, features: Tensor, block: int) -> Tensor:
        """Logits from what block number ``block`` put out."""
        for each in self.blocks[block + 1 :]:
            features = each.forward(features)
        return self.top(features)

    def logits(self, image: Tensor) -> Tensor:
        return self.finish(self.stem(image), -1)

    def __call__(self, images: Tensor) -> Tensor:
        """The network as the other naive attacks know models: N×C×H×W → N×classes."""
        return torch.stack([self.logits(image) for image in images])

    def gradient(self, image: Tensor, gain: Callable[[Tensor], Tensor], rules: Rules = PLAIN) -> Tensor:
        """Gradient of ``gain``, a function of the logits, with respect to the pixels, under ``rules``."""
        hidden = [self.stem(image)]
        for block in self.blocks:
            hidden.append(block.forward(hidden[-1]))
        (cotangent,) = vjp(lambda last: gain(self.top(last)), [hidden[-1]], ONE)
        for block, entered in zip(reversed(self.blocks), reversed(hidden[:-1]), strict=True):
            cotangent = block.backward(entered, cotangent, rules)
        (gradient,) = vjp(self.stem, [image], cotangent)
        return gradient


@cache
def antialiased_matrix(old: int, new: int) -> Tensor:
    """new×old weights of bilinear resizing whose triangle widens with the shrinking, as image libraries do."""
    scale = old / new
    reach = max(scale, 1.0)
    rows = []
    for i in range(new):
        centre = (i + 0.5) * scale
        row = [max(0.0, 1.0 - abs(j + 0.5 - centre) / reach) for j in range(old)]
        total = sum(row)
        rows.append([weight / total for weight in row])
    return torch.tensor(rows, dtype=torch.float64)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """C×H×W at another size, antialiased; left as it is where the size fits."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    return antialiased_matrix(height, size[0]) @ image @ antialiased_matrix(width, size[1]).T


def prepare(image: Tensor, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What an encoder does to pixels: resize, then normalise each channel."""
    resized = resize(image, (side, side))
    return torch.stack([(channel - m) / s for channel, m, s in zip(resized, mean, std, strict=True)])


def affine(state: State, name: str, values: Tensor) -> Tensor:
    """tokens×in → tokens×out."""
    product = values @ state[f"{name}.weight"].T
    bias = state.get(f"{name}.bias")
    return product if bias is None else product + bias


def layer_norm(state: State, name: str, tokens: Tensor, eps: float) -> Tensor:
    """Each token minus its mean, over the root of its (biased) variance plus ``eps``."""
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    variance = (centred * centred).mean(dim=1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1.0 + torch.exp(-1.702 * x))


@dataclass(frozen=True)
class TransformerBlock:
    """``h' = h + attention(norm(h))``, then ``h' + mlp(norm(h'))``, on tokens×width."""

    state: State
    name: str
    heads: int
    eps: float
    activation: Callable[[Tensor], Tensor]

    def norm_before(self, hidden: Tensor) -> Tensor:
        return layer_norm(self.state, f"{self.name}.layernorm_before", hidden, self.eps)

    def project(self, kind: str, tokens: Tensor) -> Tensor:
        """tokens×width → heads×tokens×width per head."""
        values = affine(self.state, f"{self.name}.attention.{kind}_proj", tokens)
        return values.reshape(len(tokens), self.heads, -1).transpose(0, 1)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """heads×queries×keys."""
        return query @ key.transpose(1, 2) / math.sqrt(query.shape[2])

    def weigh(self, scores: Tensor) -> Tensor:
        """The softmax over the keys."""
        raised = torch.exp(scores - scores.amax(dim=2, keepdim=True).detach())
        return raised / raised.sum(dim=2, keepdim=True)

    def attention_map(self, query: Tensor, key: Tensor) -> Tensor:
        """heads×queries×keys; every query's row sums to 1."""
        return self.weigh(self.scores(query, key))

    def mix(self, weights: Tensor, value: Tensor) -> Tensor:
        """Values mixed by the attention map, heads side by side, projected: tokens×width."""
        mixed = (weights @ value).transpose(0, 1)
        return affine(self.state, f"{self.name}.attention.o_proj", mixed.reshape(len(mixed), -1))

    def norm_after(self, hidden: Tensor) -> Tensor:
        return layer_norm(self.state, f"{self.name}.layernorm_after", hidden, self.eps)

    def mlp(self, tokens: Tensor) -> Tensor:
        inner = self.activation(affine(self.state, f"{self.name}.mlp.fc1", tokens))
        return affine(self.state, f"{self.name}.mlp.fc2", inner)

    def attend(self, hidden: Tensor) -> Tensor:
        """``h + attention(norm(h))``."""
        tokens = self.norm_before(hidden)
        query, key, value = (self.project(kind, tokens) for kind in "qkv")
        return hidden + self.mix(self.attention_map(query, key), value)

    def forward(self, hidden: Tensor) -> Tensor:
        attended = self.attend(hidden)
        return attended + self.mlp(self.norm_after(attended))

    def backward(self, hidden: Tensor, cotangent: Tensor, rules: Rules) -> Tensor:
        # The MLP's branch.
        attended = self.attend(hidden)
        leaving = rules.mlp_output(rules.branch * cotangent)
        (at_mlp,) = vjp(self.mlp, [self.norm_after(attended)], leaving)
        (through_mlp,) = vjp(self.norm_after, [attended], rules.mlp_tokens(at_mlp))
        cotangent = cotangent + through_mlp
        # The attention's branch.
        tokens = self.norm_before(hidden)
        query, key, value = (self.project(kind, tokens) for kind in "qkv")
        at_map, at_value = vjp(self.mix, [self.attention_map(query, key), value], rules.branch * cotangent)
        (at_scores,) = vjp(self.weigh, [self.scores(query, key)], rules.attention_map(at_map))
        at_query, at_key = vjp(self.scores, [query, key], rules.scores(at_scores))
        at_tokens = torch.zeros_like(tokens)
        for kind, by_head in (("q", at_query), ("k", at_key), ("v", at_value)):
            beside_each_other = by_head.transpose(0, 1).reshape(len(tokens), -1)
            tamed = rules.qkv_outputs(beside_each_other)
            arriving = tamed.reshape(len(tokens), self.heads, -1).transpose(0, 1)
            (share,) = vjp(lambda t, kind=kind: self.project(kind, t), [tokens], arriving)
            at_tokens = at_tokens + share
        (through_attention,) = vjp(self.norm_before, [hidden], rules.qkv_tokens(at_tokens))
        return cotangent + through_attention


def vision_transformer(
    state: State,
    head: tuple[Tensor, Tensor],
    *,
    heads: int,
    patch: int,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    eps: float,
    activation: Callable[[Tensor], Tensor] = gelu,
) -> Network:
    """A ViT's class token behind a linear head; with ``pre_layernorm`` and ``projection`` in the state, CLIP's."""

    def stem(image: Tensor) -> Tensor:
        pixels = prepare(image, side, mean, std)
        kernel = state["embeddings.patch_embeddings.projection.weight"].flatten(1)
        bias = state.get("embeddings.patch_embeddings.projection.bias", torch.zeros(len(kernel)))
        corners = [(top, left) for top in range(0, side, patch) for left in range(0, side, patch)]
        patches = [pixels[:, top : top + patch, left : left + patch].reshape(-1) for top, left in corners]
        tokens = [state["embeddings.cls_token"].reshape(-1), *(kernel @ each + bias for each in patches)]
        hidden = torch.stack(tokens) + state["embeddings.position_embeddings"].reshape(len(tokens), -1)
        return layer_norm(state, "pre_layernorm", hidden, eps) if "pre_layernorm.weight" in state else hidden

    def top(hidden: Tensor) -> Tensor:
        feature = layer_norm(state, "layernorm", hidden[:1], eps)
        if "projection.weight" in state:
            feature = affine(state, "projection", feature)
        return (feature @ head[0].T + head[1])[0]

    depth = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    blocks = [TransformerBlock(state, f"layers.{i}", heads, eps, activation) for i in range(depth)]
    return Network(stem, blocks, top)


def normalised_convolution(state: State, name: str, maps: Tensor, stride: int) -> Tensor:
    """Convolution, then batch normalisation with the running statistics, of C×H×W."""
    weight = state[f"{name}.convolution.weight"]
    maps = F.conv2d(maps[None], weight, stride=stride, padding=weight.shape[-1] // 2)[0]
    mean, variance, scale, shift = (
        state[f"{name}.normalization.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (maps - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def relu(maps: Tensor) -> Tensor:
    return torch.where(maps > 0, maps, torch.zeros_like(maps))


@dataclass(frozen=True)
class ResidualBlock:
    """``relu(shortcut(z) + f(z))`` on C×H×W; a bottleneck strides in its second convolution, else the first."""

    state: State
    name: str
    stride: int

    def branch(self, maps: Tensor) -> Tensor:
        """The residual branch f."""
        count = sum(f"{self.name}.layer.{i}.convolution.weight" in self.state for i in range(3))
        for i in range(count):
            stride = self.stride if i == count - 2 else 1
            maps = normalised_convolution(self.state, f"{self.name}.layer.{i}", maps, stride)
            maps = relu(maps) if i < count - 1 else maps
        return maps

    def shortcut(self, maps: Tensor) -> Tensor:
        if f"{self.name}.shortcut.convolution.weight" not in self.state:
            return maps
        return normalised_convolution(self.state, f"{self.name}.shortcut", maps, self.stride)

    def forward(self, hidden: Tensor) -> Tensor:
        return relu(self.shortcut(hidden) + self.branch(hidden))

    def backward_at_relus(self, hidden: Tensor, cotangent: Tensor, keep: float) -> Tensor:
        """As public code of SGM has it: the gradient of what the block puts out over its own standard deviation,
        then every ReLU's gradient times ``keep`` to the power of 1 over the number of ReLUs in the branch; but not
        in the first block of a stage."""
        count = sum(f"{self.name}.layer.{i}.convolution.weight" in self.state for i in range(3))
        factor = 1.0 if self.name.endswith("0") else keep ** (1 / (count - 1))
        cotangent = cotangent / cotangent.std()
        cotangent = factor * cotangent * (self.shortcut(hidden) + self.branch(hidden) > 0)
        (beside,) = vjp(self.shortcut, [hidden], cotangent)

        def layer(i: int) -> Callable[[Tensor], Tensor]:
            stride = self.stride if i == count - 2 else 1
            return lambda maps: normalised_convolution(self.state, f"{self.name}.layer.{i}", maps, stride)

        entered, before_relu = [hidden], []
        for i in range(count):
            before_relu.append(layer(i)(entered[-1]))
            entered.append(relu(before_relu[-1]))
        for i in reversed(range(count)):
            if i < count - 1:
                cotangent = factor * cotangent * (before_relu[i] > 0)
            (cotangent,) = vjp(layer(i), [entered[i]], cotangent)
        return beside + cotangent

    def backward(self, hidden: Tensor, cotangent: Tensor, rules: Rules) -> Tensor:
        if rules.relu is not None:
            return self.backward_at_relus(hidden, cotangent, rules.relu)
        cotangent = cotangent * (self.shortcut(hidden) + self.branch(hidden) > 0)
        (beside,) = vjp(self.shortcut, [hidden], cotangent)
        (through,) = vjp(self.branch, [hidden], cotangent)
        return beside + rules.branch * through


def residual_network(
    state: State,
    head: tuple[Tensor, Tensor],
    *,
    depths: Sequence[int],
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Network:
    """A ResNet's pooled maps behind a linear head; every stage but the first starts with stride 2."""

    def stem(image: Tensor) -> Tensor:
        pixels = prepare(image, side, mean, std)
        maps = relu(normalised_convolution(state, "embedder.embedder", pixels, 2))
        return F.max_pool2d(maps[None], kernel_size=3, stride=2, padding=1)[0]

    def top(hidden: Tensor) -> Tensor:
        return head[0] @ hidden.mean(dim=(1, 2)) + head[1]

    blocks = [
        ResidualBlock(state, f"encoder.stages.{stage}.layers.{i}", 2 if stage > 0 and i == 0 else 1)
        for stage, depth in enumerate(depths)
        for i in range(depth)
    ]
    return Network(stem, blocks, top)


# --- attacks ---------------------------------------------------------------------------------------------


def over_views(task: Task, point: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean, over the views of a point, of the gradient at the view brought back to the point."""
    leaf = point.detach().clone().requires_grad_(True)
    found = [
        torch.autograd.grad(view, leaf, gradient(view.detach()))[0] for view in views(task, leaf, task.inputs)
    ]
    return torch.stack(found).mean(dim=0)


def towards(task: Task) -> tuple[int, float]:
    """The label whose features count, and whether they are to grow (1) or to fall (-1)."""
    return (task.label, -1.0) if task.target is None else (task.target, 1.0)


def follow(task: Task, gradient: Callable[[Tensor], Tensor]) -> Trace:
    """The shared loop along a gradient that is a function of what the network sees."""
    return iterate(task, lambda point, _: over_views(task, point, gradient))


def patch_corners(image: Tensor, patch: int) -> list[tuple[int, int]]:
    """Where patches begin, row by row; those at the far edges may be cut off."""
    height, width = image.shape[-2:]
    return [(top, left) for top in range(0, height, patch) for left in range(0, width, patch)]


def patch_mask(image: Tensor, numbers: Tensor, kept: float, patch: int) -> Tensor:
    """1 on the patches (row by row) with the smallest numbers, ``kept`` of them all, at least one; else 0."""
    corners = patch_corners(image, patch)
    order = sorted(range(len(corners)), key=lambda i: float(numbers[i]))
    mask = torch.zeros_like(image)
    for i in order[: max(1, round(kept * len(corners)))]:
        top, left = corners[i]
        mask[:, top : top + patch, left : left + patch] = 1.0
    return mask


@ForEachImage
def pna_patchout(task: Task, *, patch: int, kept: float, regularization: float) -> Trace:
    """No gradient through attention maps; at each step the perturbation of some patches only is seen."""
    frozen = Rules(attention_map=torch.zeros_like)
    count = len(patch_corners(task.image, patch))

    def ascent(point: Tensor, _: Tensor) -> Tensor:
        numbers = task.draws.uniform(count, like=task.image[None])[0]
        mask = patch_mask(task.image, numbers, kept, patch)
        shown = (point - task.image) * mask
        seen = task.image + shown
        found = over_views(task, seen, lambda view: task.model.gradient(view, task.gain, frozen)) * mask
        size = euclidean(shown)
        return found + regularization * shown / size if size > 0 else found

    return iterate(task, ascent)


@ForEachImage
def tgr(
    task: Task,
    *,
    attention: float = 0.25,
    qkv: float = 0.75,
    mlp: float = 0.5,
    maps: str = "weights",
    tokens: str = "inputs",
) -> Trace:
    """Extreme entries of the three gradients are zeroed, the others made smaller."""
    at_map = {"weights": "attention_map", "scores": "scores"}[maps]
    at_qkv, at_mlp = {"inputs": ("qkv_tokens", "mlp_tokens"), "outputs": ("qkv_outputs", "mlp_output")}[tokens]
    tame: dict[str, Callable[[Tensor], Tensor]] = {
        at_map: lambda gradient: tame_map(gradient, attention),
        at_qkv: lambda gradient: tame_tokens(gradient, qkv),
        at_mlp: lambda gradient: tame_tokens(gradient, mlp),
    }
    rules = Rules(**tame)
    return follow(task, lambda seen: task.model.gradient(seen, task.gain, rules))


@ForEachImage
def sgm(task: Task, *, keep: float = 0.5, first_blocks: bool = True) -> Trace:
    """Residual branches pass on ``keep`` of their gradient; without first blocks, at ReLUs."""
    rules = Rules(branch=keep) if first_blocks else Rules(relu=keep)
    return follow(task, lambda seen: task.model.gradient(seen, task.gain, rules))


@ForEachImage
def fia(task: Task, *, block: int, ensemble: int = 30, drop: float = 0.3, importance: str = "logit") -> Trace:
    """Lower the features, weighted by the true logit's gradient summed over masked images; or raise the target's.
    Or by the gradient of its probability."""
    network = task.model
    label, direction = towards(task)
    weights = torch.zeros_like(network.features(task.image, block))
    for _ in range(ensemble):
        mask = task.draws.noise(like=task.image[None])[0] >= drop
        features = network.features(task.image * mask, block)
        if importance == "probability":

            def said(f: Tensor) -> Tensor:
                logits = network.finish(f, block)
                return torch.exp(logits[label]) / torch.exp(logits).sum()
        else:

            def said(f: Tensor) -> Tensor:
                return network.finish(f, block)[label]

        weights = weights + vjp(said, [features], ONE)[0]
    weights = weights / euclidean(weights)
    return follow(task, lambda seen: direction * vjp(lambda x: network.features(x, block), [seen], weights)[0])


@ForEachImage
def naa(task: Task, *, block: int, integration: int = 30, negative: float = 1.0) -> Trace:
    """Lower positive attributions to the true class and raise ``negative`` times the negative ones; or the target's,
    the other way round."""
    network = task.model
    label, direction = towards(task)

    def probability(features: Tensor) -> Tensor:
        logits = network.finish(features, block)
        return torch.exp(logits[label] - torch.logsumexp(logits, dim=0))

    weights = torch.zeros_like(network.features(task.image, block))
    for m in range(1, integration + 1):
        features = network.features(task.image * m / integration, block)
        weights = weights + vjp(probability, [features], ONE)[0] / integration
    black = network.features(torch.zeros_like(task.image), block)

    def gradient(seen: Tensor) -> Tensor:
        attributions = (network.features(seen, block) - black) * weights
        # The derivative of -negative max(-A, 0) with respect to A < 0 is +negative; at 0 either side's will do.
        slope = torch.where(attributions > 0, ONE, negative * ONE)
        return direction * vjp(lambda x: network.features(x, block), [seen], slope * weights)[0]

    return follow(task, gradient)


@ForEachImage
def ilpd(task: Task, *, block: int, keep: float = 0.1, noise: float = 1.6) -> Trace:
    """The gradient where a block puts out a mix of what it makes of the point and of a noisy clean image."""
    network = task.model

    def gradient(seen: Tensor) -> Tensor:
        normal = task.draws.normal(like=task.image[None])[0]
        clean = network.features(task.image + noise * task.per_pixel(task.epsilon) * normal, block)
        mixed = keep * network.features(seen, block) + (1 - keep) * clean
        (cotangent,) = vjp(lambda f: task.gain(network.finish(f, block)), [mixed], ONE)
        return vjp(lambda x: network.features(x, block), [seen], keep * cotangent)[0]

    return iterate(task, lambda point, _: over_views(task, point, gradient), decay=0.0)


def universal(perturbation: Tensor, image: Tensor, *, epsilon: float, norm: str) -> Tensor:
    """C×h×w resized to the image, shortened as a whole where it exceeds ``epsilon``, added, put into the box."""
    height, width = image.shape[-2:]
    delta = resize(perturbation, (height, width))
    size = float(delta.abs().max()) if norm == "linf" else euclidean(delta)
    if size > epsilon:
        delta = delta * (epsilon / size)
    return torch.minimum(torch.maximum(image + delta, torch.zeros_like(image)), torch.ones_like(image))


def combine(logits: Sequence[Sequence[float]], how: str) -> list[float]:
    """Logits of one image by several models (models × classes) → their mean, or that of their probabilities, as
    logarithms."""
    count = len(logits)
    if how == "logits":
        return [sum(column) / count for column in zip(*logits, strict=True)]
    totals = [max(row) + math.log(sum(math.exp(z - max(row)) for z in row)) for row in logits]
    probabilities = [[math.exp(z - total) for z in row] for row, total in zip(logits, totals, strict=True)]
    return [math.log(sum(column) / count) for column in zip(*probabilities, strict=True)]
