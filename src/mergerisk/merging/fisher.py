"""Fisher merging: each parameter weighted by how much an expert's predictions hang on it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mergerisk.merging.learned import LearnedMerging
from mergerisk.merging.method import evaluated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mergerisk.merging.learned import Lesson
    from mergerisk.merging.material import Merged
    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder, State

_BYTES = 2**28
"""Of the gradients held at once: one per example of a chunk and parameter."""
_EXAMPLES = 64
"""The most examples in a chunk; more gain nothing even where gradients are small."""


@hyperparameters
class Fisher(LearnedMerging):
    """Σ Ft θt / Σ Ft, entry by entry, with the diagonal Fisher information Ft of expert t on unlabelled images
    of its task (Matena and Raffel 2022, arXiv 2111.09832, equations 4 to 6).

    Ft = mean over images x of Σ_y p(y|x) (∂ log p(y|x) / ∂θ)², at θt and with the task's head. It is divided by
    its L2 norm over all parameters, so that experts of different confidence weigh alike, and then raised to at
    least ``floor``: parameters that no prediction hangs on come out averaged, as do floating buffers.

    Public code sets the floor before it divides, on Ft as it is, whose size depends on the model; what no
    prediction hangs on is then averaged with the weights 1/‖Ft‖. ``flooring`` has both forms of it. By its own
    default the authors' code raises the first model alone, which favours that one; this is not offered.

    Gradients are squared per image and class, as in the authors' code. Squaring the gradient of a batch's summed
    loss, as in FusionBench, mixes images and makes the result depend on the batch size. ``examples`` and ``floor``
    are FusionBench's.

    Beside base and one expert, four times a model's size is held: the two sums, one expert's Fisher information,
    and the gradients of a chunk of images.

    Attributes:
        examples: images read per task, chosen at random; all of them if there are fewer.
        classes: ``expected`` sums over all classes, each weighted by its probability (one backward pass per
            class); ``sampled`` draws one class per image from p(y|x), an unbiased estimate.
        floor: the least weight of any entry, or what is added to it.
        flooring: ``normalised`` is max(Ft / ‖Ft‖, floor); ``raw`` is max(Ft, floor) / ‖Ft‖ (the authors' code,
            mmatena/model_merging); ``added`` is (Ft + floor) / (‖Ft‖ + floor) (MergeLM, FusionBench).
    """

    stream: ClassVar[str] = "fisher"

    examples: PositiveInt = 256
    classes: Literal["expected", "sampled"] = "expected"
    floor: PositiveFloat = 1e-6
    flooring: Literal["normalised", "raw", "added"] = "normalised"

    def held(self, count: int) -> float:
        """Sums of weights and of information, and a model with its gradients."""
        del count
        return 7.0

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        return {"training": sum(min(pool, self.examples) for pool in pools)}

    def learn(self, lesson: Lesson) -> Merged:
        pretrained, origin = lesson.pretrained, lesson.tied
        named = lesson.base.backbone.named_parameters(remove_duplicate=False)
        parameters = {name for name, parameter in named if parameter.is_floating_point()}
        names = [name for name in pretrained if name in parameters - origin.keys()]
        weighted = {name: torch.zeros_like(pretrained[name]) for name in names}
        total = {name: torch.zeros_like(pretrained[name]) for name in names}
        for task in lesson.experts:
            images = lesson.chosen_images(task, self.examples)
            # One number per image, drawn beforehand: what it draws does not depend on the chunk it is in.
            uniform = torch.rand(len(images), dtype=torch.float64, generator=lesson.draws(task, "class"))
            head = lesson.calibration[task].head
            # The expert has no name here, so that it is gone when the next one is loaded.
            self._add(weighted, total, evaluated(lesson.experts[task]), head, origin, images, uniform)
        merged = lesson.averages(name for name in pretrained if name not in parameters)
        return lesson.merged(merged | {name: weighted[name].div_(total.pop(name)) for name in names})

    def _add(
        self,
        weighted: State,
        total: State,
        expert: Encoder,
        head: Head,
        origin: Mapping[str, str],
        images: torch.Tensor,
        uniform: torch.Tensor,
    ) -> None:
        """Add one expert's Ft θt to ``weighted`` and its Ft to ``total``. See :meth:`_fisher`."""
        tuned = expert.state()
        leaves = {name: tuned[name] for name in weighted}
        fisher = self._weights(self._fisher(expert, head, leaves, origin, images, uniform))
        for name in weighted:
            weighted[name].addcmul_(fisher[name], tuned[name])
            total[name].add_(fisher[name])

    def _weights(self, fisher: State) -> State:
        """Ft → what θt is weighted with, in the same memory."""
        # In double precision, where the squares of small numbers do not vanish.
        norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in fisher.values()]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        for tensor in fisher.values():
            if self.flooring == "normalised":
                tensor.div_(norm or 1.0).clamp_(min=self.floor)
            elif self.flooring == "raw":
                tensor.clamp_(min=self.floor).div_(norm or 1.0)
            else:
                tensor.add_(self.floor).div_(norm + self.floor)
        return fisher

    def _fisher(
        self,
        encoder: Encoder,
        head: Head,
        parameters: State,
        origin: Mapping[str, str],
        images: torch.Tensor,
        uniform: torch.Tensor,
    ) -> State:
        """Ft by parameter name.

        Args:
            encoder: expert t, in evaluation mode.
            head: the task's.
            parameters: the backbone's, tied ones once.
            origin: other names of tied ones → the name they have in ``parameters``.
            images: N × 3 × H × W.
            uniform: N numbers in [0, 1), which say what class is sampled.
        """

        # A layer under several names is one slot: functional_call cannot put it back otherwise.
        slots = {slot: origin.get(slot, slot) for slot, _ in encoder.backbone.named_parameters()}

        def log_probabilities(image: torch.Tensor, copy: State) -> torch.Tensor:
            named = {f"backbone.{slot}": copy[name] for slot, name in slots.items() if name in copy}
            features = functional_call(encoder, named, (image[None],), tie_weights=False)
            return F.log_softmax(head(features)[0], dim=0)

        fisher = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        size = _BYTES // sum(tensor.nbytes for tensor in fisher.values())
        size = max(1, min(size, _EXAMPLES))
        device = encoder.mean.device
        with _plain_attention():
            for batch, draws in zip(images.split(size), uniform.split(size), strict=True):
                # Every image gets a (virtual) copy of the parameters for itself, so that a backward pass yields
                # a gradient per image, and one forward pass serves the backward passes of all classes.
                copies = {name: tensor.expand(len(batch), *tensor.shape) for name, tensor in parameters.items()}
                every = vmap(log_probabilities, randomness="different")  # of models that draw when called
                logs, pull = vjp(partial(every, batch.to(device)), copies)  # type: ignore[misc]
                for cotangent in self._cotangents(logs, draws.to(device)):
                    (gradients,) = pull(cotangent)
                    for name in fisher:
                        # Not in place: gradients of different parameters may be views of one tensor.
                        fisher[name] += gradients.pop(name).square().sum(dim=0)
        return {name: tensor.div_(len(images)) for name, tensor in fisher.items()}

    def _cotangents(self, logs: torch.Tensor, uniform: torch.Tensor) -> Iterator[torch.Tensor]:
        """What log p(y|x) is weighted with, each N × classes, for gradients whose squares sum to the Fisher
        information: √p(y|x) at one class after another, or 1 at the class that ``uniform`` falls on."""
        classes = logs.shape[1]
        if self.classes == "sampled":
            passed = logs.double().exp().cumsum(dim=1) < uniform[:, None]
            # Rounding may leave the last sum a little below 1.
            yield F.one_hot(passed.sum(dim=1).clamp(max=classes - 1), classes).to(logs)
            return
        roots = (logs / 2).exp()
        for position in range(classes):
            cotangent = torch.zeros_like(roots)
            cotangent[:, position] = roots[:, position]
            yield cotangent


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without fused attention, for which vmap has no rule on CPUs, and without the fast path of PyTorch's own
    transformer layers, which has no gradient."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
