"""Adversarial images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mergerisk.study.attacked import attacked
from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.shards import Divisible
from mergerisk.study.stage import Result
from mergerisk.study.variants.encoders import EncoderVariant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


_BY_ITERATE = frozenset({"adversarial", "l2", "linf"})
"""Arrays with a row per iterate."""


@dataclass(frozen=True, kw_only=True)
class Craft(Divisible):
    """Adversarial images of one attack at one budget, and what crafting them met.

    Keeps ``adversarial`` (iterates × images × …, the last iterate last), ``l2`` and ``linf`` of every iterate's
    change, and per image ``indices``, ``labels``, ``aimed_at`` (−1 where untargeted) and ``zero_gradients``.
    Where few changes make the images, these are kept instead (:mod:`mergerisk.study.differences`);
    :meth:`Workbench.crafted` gives whole images either way.

    Attributes:
        task: whose test images are attacked.
        surrogate: what they are crafted on.
        attack: the attack.
        parameters: its hyper-parameters, defaults filled in; those that name what lies elsewhere by its
            content.
        epsilon: the budget, of pixels in [0, 1].
        norm: of the budget.
        after: numbers of steps after which iterates are kept besides the last.
        images: how many are attacked, if the test split has as many.
        seed: of what is drawn.
        brought: those, as the study names them.
        crafted: images that are attacked.
        gradients: of every image, that the attack asks for; the first it may share with others.
    """

    kind: ClassVar[str] = "craft"
    noun: ClassVar[str] = "craft"
    version: ClassVar[int] = 4
    rank: ClassVar[int] = 6

    task: Input[Task]
    surrogate: SurrogateVariant
    attack: str
    parameters: Mapping[str, Any]
    epsilon: float
    norm: Literal["linf", "l2"]
    after: tuple[int, ...]
    images: int
    seed: int
    brought: Mapping[str, Any] = unkeyed(default_factory=dict)
    crafted: int = unkeyed()
    gradients: int = unkeyed()

    @property
    def rows(self) -> int:
        """An image each."""
        return self.crafted

    def whole_cost(self) -> Mapping[str, int]:
        """Images, times encoders of the surrogate, times gradients per image."""
        return {"gradient": self.crafted * self.surrogate.gradient_passes * self.gradients}

    def part(self, bench: Workbench, first: int, last: int | None) -> Mapping[str, NDArray[Any]]:
        """``adversarial``, iterates × N × 3 × H × W in [0, 1]; of every image its index, label, aim (−1 without
        one) and zero gradients; of every iterate the size of its change, L∞ and L2."""
        import torch

        from mergerisk import attacks

        task, device = bench.task(self.task), bench.compute.device
        indices = attacked(task, self.images)
        last = len(indices) if last is None else min(last, len(indices))
        if first >= last > 0:
            return {}
        images, labels = task.test.images[indices], task.test.labels[indices]
        # Others may draw, or change as they are asked, in ways of their own.
        known = bench.gradients(self.surrogate) if isinstance(self.surrogate, EncoderVariant) else None
        parameters = {**self.parameters, **self.brought}
        crafted = attacks.create(self.attack, **parameters).craft(
            self.surrogate.classifier(bench),
            images.to(device),
            labels.to(device),
            epsilon=self.epsilon,
            norm=self.norm,
            seed=self.seed,
            indices=indices,
            batch_size=bench.compute.batch_size,
            after=self.after,
            only=(first, last),
            known=known,
        )
        images, labels, indices = images[first:last], labels[first:last], indices[first:last]
        iterates = torch.stack([*crafted.after.values(), crafted.adversarial]).cpu()
        changes = (iterates.double() - images.double()).flatten(2)
        sizes = {"l2": changes.norm(dim=2), "linf": changes.abs().amax(dim=2)}
        assert float(sizes[self.norm].max()) <= self.epsilon, "an attack exceeded its budget"
        assert 0.0 <= float(iterates.min()) <= float(iterates.max()) <= 1.0, "an attack left the pixel box"
        aims = torch.full_like(labels, -1) if crafted.targets is None else crafted.targets.cpu()
        return {
            "adversarial": iterates.numpy(),
            "indices": indices.numpy(),
            "labels": labels.numpy(),
            "aimed_at": aims.numpy(),
            "zero_gradients": crafted.zero_gradients.cpu().numpy(),
            **{name: size.numpy() for name, size in sizes.items()},
        }

    def joined(self, bench: Workbench, parts: Sequence[Mapping[str, NDArray[Any]]]) -> Result:
        """The parts' arrays, end to end; those of iterates along their second axis."""
        import numpy as np
        import torch

        from mergerisk.study.differences import CHANGE, encoded

        filled = [part for part in parts if part]
        arrays = {
            name: np.concatenate([part[name] for part in filled], axis=int(name in _BY_ITERATE))
            for name in filled[0]
        }
        clean = bench.task(self.task).test.images[torch.from_numpy(arrays["indices"])].numpy()
        fewer = encoded(arrays["adversarial"], clean)
        if fewer is None:
            return Result(arrays, compressed=("adversarial",))
        del arrays["adversarial"]
        return Result(arrays | fewer, compressed=(CHANGE,))
