"""Who answers together: the models that a study attacks, and those it attacks with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store.keys import Json
    from mergerisk.study.specs import TargetSpec


@dataclass(frozen=True)
class Backbone:
    """A pretrained encoder.

    Attributes:
        identity: what keys hold of it.
        sources: where it is, and how it is loaded.
    """

    identity: Json
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Architecture:
    """A backbone that is not the study's, with its head of the task in question.

    Attributes:
        backbone: the pretrained encoder.
        head: key of the stage that makes the head.
    """

    backbone: Backbone
    head: str


@dataclass(frozen=True)
class TargetGroup:
    """Targets of one task that answer together.

    Attributes:
        targets: target label → key of the stage that makes its adapters, or None.
    """

    targets: Mapping[str, str | None]

    @property
    def passes(self) -> int:
        """Encoders that an image passes through."""
        return 1

    @property
    def variants(self) -> list[str | None]:
        """The distinct classifiers: adapter keys, None (no adapter) first."""
        return sorted(set(self.targets.values()), key=lambda key: key or "")

    def inputs(self) -> dict[str, str]:
        """Role → key: what a stage needs to let them answer, besides their task's head."""
        adapters = [key for key in self.variants if key is not None]
        return {f"adapters/{position:03d}": key for position, key in enumerate(adapters)}

    def parameters(self) -> dict[str, Json]:
        """What else their answers depend on."""
        return {"plain": None in self.variants}

    def sources(self) -> dict[str, str]:
        """Where to find what is not in the store."""
        return {}

    def backbone(self, usual: Backbone) -> Backbone:
        """The pretrained encoder behind them, ``usual`` unless they are of another architecture."""
        return usual

    def head(self, usual: str) -> str:
        """Key of the head they carry, likewise."""
        return usual


@dataclass(frozen=True)
class EncoderGroup(TargetGroup):
    """Targets that share an encoder, and so a forward pass.

    Attributes:
        encoder: key of the stage that makes it; None for the pretrained one.
        correction: key of the stage that makes what is put inside the encoder, or None.
        architecture: what it is an encoder of; None for the study's backbone.
    """

    encoder: str | None
    correction: str | None = None
    architecture: Architecture | None = None

    def inputs(self) -> dict[str, str]:
        found = {"encoder": self.encoder, "correction": self.correction}
        return super().inputs() | {role: key for role, key in found.items() if key is not None}

    def backbone(self, usual: Backbone) -> Backbone:
        return usual if self.architecture is None else self.architecture.backbone

    def head(self, usual: str) -> str:
        return usual if self.architecture is None else self.architecture.head


@dataclass(frozen=True)
class EnsembleGroup(TargetGroup):
    """Several models as one.

    Attributes:
        members: model → key of the stage that makes its encoder; None for the pretrained base.
        combine: what is averaged.
    """

    members: Mapping[str, str | None]
    combine: str

    @property
    def passes(self) -> int:
        return len(self.members)

    def inputs(self) -> dict[str, str]:
        return {f"member/{name}": key for name, key in self.members.items() if key is not None}

    def parameters(self) -> dict[str, Json]:
        return {"members": list(self.members), "combine": self.combine}


@dataclass(frozen=True)
class BlackBoxGroup(TargetGroup):
    """A target that is asked.

    Attributes:
        spec: whom and how.
        task: which of the target's places answers.
        task_key: of the stage that makes the task, for its class names.
    """

    spec: TargetSpec
    task: str
    task_key: str

    def inputs(self) -> dict[str, str]:
        return {"task": self.task_key}

    def parameters(self) -> dict[str, Json]:
        spec = self.spec
        return {"black_box": {"place": spec.places[self.task], "answer": spec.answer, "version": spec.version}}

    def sources(self) -> dict[str, str]:
        """How to ask: does not change what is answered."""
        return {"black_box": self.spec.model_dump_json()}
