"""A model behind a defense, and what an attacker crafts on who knows the defense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.defenses import Defense
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images

DRAWS = 10
"""Of a defense's random draws, that attackers average who know it: the published numbers begin here."""


@dataclass(frozen=True, kw_only=True)
class DefendedVariant(SurrogateVariant):
    """A model behind a defense; see :class:`mergerisk.defenses.Defense`.

    Attributes:
        defense: its name.
        parameters: its hyper-parameters, defaults filled in.
        of: what is defended, one model.
        plugins: name and version of the installed package that adds the defense.
    """

    kind: ClassVar[str] = "defended"

    defense: str
    parameters: Mapping[str, Any]
    of: SurrogateVariant
    plugins: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """As many as of what is defended, times those that an answer of the defense takes."""
        return self.of.passes * self.made.passes

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that it names, 1 × N."""
        from mergerisk.transfer import predict

        return predict(self.classifier(bench), images, batch_size=bench.compute.batch_size, first=first)[None]

    def classifier(self, bench: Workbench) -> nn.Module:
        """The defended model, from pixels in [0, 1] to logits."""
        return self.made.defend(self.of.classifier(bench)).eval()

    @property
    def made(self) -> Defense:
        """The defense itself."""
        from mergerisk import defenses

        return defenses.create(self.defense, **self.parameters)

    def known(self, seed: int, of: SurrogateVariant | None = None) -> AdaptiveVariant:
        """What an attacker crafts on who knows the defense, and those behind it, and averages :data:`DRAWS` of
        its random draws.

        Args:
            seed: of the draws.
            of: the model that they hold; the defended one itself by default: a white box.
        """
        of = self.of.known(seed, of)
        return AdaptiveVariant(
            columns=self.columns,
            task=self.task,
            head=self.head,
            defense=self.defense,
            parameters=self.parameters,
            of=of,
            plugins=self.plugins,
            draws=DRAWS,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class AdaptiveVariant(DefendedVariant):
    """A model behind a defense, as an attacker crafts on it who knows the defense; see
    :meth:`mergerisk.defenses.Defense.adaptive`.

    Attributes:
        draws: of the defense's random draws, that the attacker averages.
        seed: of these, which are never the defender's.
    """

    kind: ClassVar[str] = "adaptive"

    draws: int
    seed: int

    @property
    def passes(self) -> int:
        """As many as of the model, times the draws of a defense that draws."""
        return self.of.passes * self.made.adaptive_passes(self.draws)

    def classifier(self, bench: Workbench) -> nn.Module:
        """The defended model with a gradient that says where its answers go."""
        model = self.of.classifier(bench)
        return self.made.adaptive(model, draws=self.draws, seed=self.seed).eval()
