"""What every training defense is: an encoder and images to learn from → an encoder of the same architecture."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch.nn.attention import SDPBackend, sdpa_kernel

from mergerisk.attacks.ascent import ascend
from mergerisk.attacks.budget import Norm  # pydantic reads it
from mergerisk.errors import UserError
from mergerisk.finetuning import FineTuning, descend
from mergerisk.models.core.checks import precision_named
from mergerisk.models.core.classifier import Classifier
from mergerisk.randomness import drawing, generator
from mergerisk.seeds import derive_seed
from mergerisk.validation import Epsilon, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.images import Images
    from mergerisk.tasks.task import Task


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a training defense reads of one task. Never the images that are going to be attacked.

    Attributes:
        images: N × 3 × H × W in [0, 1].
        head: the task's, which stays as it is.
        labels: int64, N; None where nobody knows them, which some defenses can do without.
        public: encoders that anyone can download, the base and experts say, for the defenses that look at them.
    """

    images: Images
    head: Head
    labels: torch.Tensor | None = None
    public: Sequence[Encoder] = ()

    @classmethod
    def of(cls, task: Task, head: Head, public: Iterable[Encoder] = ()) -> TrainingData:
        """A task's training images.

        Raises:
            UserError: it has none, or the head is of other classes.
        """
        head.check_task(task)
        train = task.training_split("a training defense")
        return cls(train.images, head, train.labels, tuple(public))


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from.

    Attributes:
        images: N × 3 × H × W in [0, 1], of one task.
        labels: int64, N; zeros where nobody knows them.
        classifier: what is trained, under the task's head.
        original: the same as it was before, frozen.
        public: public models under the task's head, frozen.
        indices: the images' positions among the task's.
        seed: of what is drawn for the batch, which belongs to (seed, image position).
    """

    images: torch.Tensor
    labels: torch.Tensor
    classifier: Classifier
    original: Classifier
    public: tuple[Classifier, ...]
    indices: tuple[int, ...]
    seed: int

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [*self.classifier.encoder.parameters()]


@hyperparameters
class TrainingDefense(FineTuning):
    """Hyper-parameters of a defense that changes a model's weights: how it is trained, and with what loss.

    Subclasses are frozen dataclasses of hyper-parameters with a :meth:`loss`.
    """

    needs_labels: ClassVar[bool] = True
    """Whether it learns from labels."""
    needs_public: ClassVar[bool] = False
    """Whether it looks at public models."""
    second_order: ClassVar[bool] = False
    """Whether its loss has a gradient in it."""
    secret: ClassVar[bool] = False
    """Whether a base that it trained is kept from attackers; else that is public, as bases are."""

    epochs: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-4

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """What is minimised: one number, with a gradient to the batch's weights."""

    def differentiate(self, batch: Batch) -> None:
        """Leave the gradient of the loss in the batch's weights, which have none yet."""
        self.loss(batch).backward()

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        """How often an image passes through a model in an epoch: to the weights and back, ``training``; to the
        image and back, ``gradient``; ``forward`` only.

        Args:
            public: how many public models there are.
        """
        return {"training": 1}

    def train(self, encoder: Encoder, data: Mapping[str, TrainingData], *, seed: int = 0) -> Encoder:
        """A hardened copy of an encoder, which serves all the tasks that it learnt from.

        It may be called anywhere, within ``torch.no_grad()`` and ``torch.inference_mode()`` too. A model that
        draws from PyTorch's global generator draws from ``seed``, and leaves that generator as it was.

        Args:
            encoder: of a merge, or of any model; it is not changed.
            data: task → what is learnt from. Batches of all tasks come mixed.
            seed: of the order of the images and of what the defense draws.

        Raises:
            UserError: no task, a task without images, labels or public models that the defense needs, labels that
                are not the head's, a head of another width, models of another precision than the images; or the
                training diverged.
        """
        self._check(data)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            drawing(seed, "training defense", device=encoder.mean.device),
            # Fused attention has no second derivative.
            sdpa_kernel(SDPBackend.MATH) if self.second_order else nullcontext(),
        ):
            return self._train(encoder, data, seed)

    def _train(self, encoder: Encoder, data: Mapping[str, TrainingData], seed: int) -> Encoder:
        device, original = encoder.mean.device, encoder.with_state(encoder)
        public = {task: [one.with_state(one) for one in given.public] for task, given in data.items()}

        def differentiate(trained: Encoder) -> Callable[[int, str, torch.Tensor], None]:
            def backward(epoch: int, task: str, rows: torch.Tensor) -> None:
                given = data[task]
                labels = torch.zeros_like(rows) if given.labels is None else given.labels[rows]
                batch = Batch(
                    given.images[rows].to(device),
                    labels.to(device),
                    Classifier(trained, given.head),
                    Classifier(original, given.head),
                    tuple(Classifier(one, given.head) for one in public[task]),
                    tuple(rows.tolist()),
                    derive_seed(seed, "training defense", epoch, task),
                )
                with precision_named(trained, given.images[:0], "the encoder"):
                    self.differentiate(batch)

            return backward

        counts = {task: len(given.images) for task, given in data.items()}
        draws = generator(seed, "training defense", *counts)
        return descend(encoder, counts, self, draws, differentiate, f"{type(self).__name__}'s training")

    def _check(self, data: Mapping[str, TrainingData]) -> None:
        who = type(self).__name__
        if not data:
            raise UserError(f"{who} has nothing to learn from: give the training data of one task at least")
        for task, given in data.items():
            classes = len(given.head.weight)
            if not len(given.images):
                raise UserError(f"{who}: task {task!r} has no images to learn from")
            if self.needs_labels and given.labels is None:
                raise UserError(f"{who} learns from labels, and task {task!r} has none")
            if self.needs_public and not given.public:
                raise UserError(f"{who} needs public models of task {task!r}: the base, or its expert")
            labels = given.labels
            if labels is not None and (
                labels.shape != (len(given.images),) or not bool(((labels >= 0) & (labels < classes)).all())
            ):
                raise UserError(f"task {task!r}: labels must be one per image, in 0 … {classes - 1}")


@hyperparameters
class AdversarialTraining(TrainingDefense):
    """A training defense that looks at the worst images within a budget, found by the one attack loop.

    Attributes:
        epsilon: the budget, in pixel units.
        steps: of the search, each the steepest: by the sign of the gradient in L∞, along it in L2.
        step_size: α, in pixel units; None for 2.5 ε / ``steps``, at most ε.
        norm: what ``epsilon`` bounds: ``linf`` or ``l2``.
    """

    added: ClassVar[frozenset[str]] = frozenset({"norm"})

    epsilon: Epsilon = 8 / 255
    steps: PositiveInt = 10
    step_size: PositiveFloat | None = None
    norm: Norm = "linf"

    @model_validator(mode="after")
    def _in_the_box(self) -> Self:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"epsilon: must be at most 1 in linf, got {self.epsilon:g}; pixels lie in [0, 1], so 8/255 is "
                "written 8/255"
            )
        return self

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 1, "gradient": self.steps}

    def worst(
        self,
        batch: Batch,
        model: Classifier,
        gain: Callable[[torch.Tensor], torch.Tensor],
        *,
        noise: float | None = None,
        draw: int = 0,
    ) -> torch.Tensor:
        """Images within the budget of the batch's that ``gain`` is large of; see
        :func:`mergerisk.attacks.ascend`.

        Args:
            batch: whose images.
            model: what ``gain`` asks.
            gain: images → one number, summed over images.
            noise: see there.
            draw: tells random starts for the same images apart.
        """
        return ascend(
            model,
            gain,
            batch.images,
            epsilon=self.epsilon,
            steps=self.steps,
            step_size=self.step_size,
            noise=noise,
            norm=self.norm,
            seed=derive_seed(batch.seed, "start", draw),
            indices=batch.indices,
        )
