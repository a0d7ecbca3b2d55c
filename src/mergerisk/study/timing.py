"""How long what is left of a plan will take, from a measured warm-up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from mergerisk.memory import fitting, graph_bytes, synchronise
from mergerisk.models import Classifier, Head, load_encoder
from mergerisk.models.core.stated import of_base
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage

_CLASSES = 10
"""Of the head that is timed; next to the encoder a head costs nothing."""


@dataclass(frozen=True)
class Speeds:
    """What one worker does in a second.

    Attributes:
        images: per second, by what :data:`mergerisk.study.stage.COSTS` lists.
        device: where it was measured, in words.
        workers: how many there are.
    """

    images: Mapping[str, float]
    device: str
    workers: int = 1

    def seconds(self, stages: Iterable[Stage]) -> float:
        """What the stages' passes through models will take one worker; reading and writing is not counted."""
        return sum(
            count / self.images[how]
            for stage in stages
            for how, count in stage.cost().items()
            if how in self.images
        )


def measure_speeds(study: Study, device: str, *, batch_size: int = 128, least: float = 1.0) -> Speeds:
    """Time the study's backbone on images of its first task's size.

    Args:
        study: a resolved study whose models are on this machine.
        device: ``cpu`` (one thread, as in a worker), ``cuda``, ``cuda:N`` or ``mps``.
        batch_size: images at a time, fewer where they do not fit.
        least: seconds to measure each kind of pass for, after one that warms up.

    Raises:
        UserError: the backbone cannot be loaded.
    """
    encoder = load_encoder(
        study.backbone, image_size=study.image_size, preprocessing=of_base(study.preprocessing)
    ).to(device)
    head = Head(
        torch.randn(_CLASSES, encoder.width, generator=torch.Generator().manual_seed(0)), torch.zeros(_CLASSES)
    )
    classifier = Classifier(encoder, head.to(device))
    side = math.isqrt(study.tasks[0].source.check().image_bytes // 12)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    count = min(batch_size, fitting(graph_bytes(lambda: classifier(image.requires_grad_())), image.device))
    images = image.detach().repeat(count, 1, 1, 1)
    labels = torch.zeros(count, dtype=torch.int64, device=device)

    def forward() -> None:
        with torch.no_grad():
            classifier(images)

    def gradient() -> None:
        leaf = images.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(classifier(leaf), labels), leaf)

    def training() -> None:
        F.cross_entropy(classifier(images), labels).backward()

    with one_thread():
        found = {
            "forward": _rate(forward, count, device, least),
            "gradient": _rate(gradient, count, device, least),
        }
        encoder.requires_grad_(True)
        found["training"] = _rate(training, count, device, least)
    return Speeds(found, _in_words(torch.device(device)))


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "GPU of Apple's" if device.type == "mps" else "CPU, one thread"


def _rate(work: Callable[[], None], images: int, device: str, least: float) -> float:
    """Images per second of ``work``, which takes so many."""

    def run() -> float:
        start = time.perf_counter()
        work()
        synchronise(torch.device(device))
        return time.perf_counter() - start

    run()
    spent = [run()]
    while sum(spent) < least:
        spent.append(run())
    return images * len(spent) / sum(spent)
