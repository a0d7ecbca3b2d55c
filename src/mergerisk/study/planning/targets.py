"""Who is attacked on a task, and with whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.registry import plugins
from mergerisk.study.fields import surrogates
from mergerisk.study.fields.surrogates import KNOWING, OTHER_ARCHITECTURE, OUTSIDER, OWN_METHOD
from mergerisk.study.variants.black_box import BlackBoxVariant
from mergerisk.study.variants.defended import DefendedVariant
from mergerisk.study.variants.encoders import EncoderVariant
from mergerisk.study.variants.ensemble import EnsembleVariant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.merging.material import Tensors
    from mergerisk.models import State
    from mergerisk.study.fields.surrogates import Reference, SurrogateSpec
    from mergerisk.study.keyed import Input
    from mergerisk.study.planning.material import Material
    from mergerisk.study.planning.models import Models
    from mergerisk.study.schema import Study
    from mergerisk.study.variants.variant import SurrogateVariant, TargetVariant


@dataclass(frozen=True)
class OneTask:
    """The models of one task under one seed."""

    study: Study
    material: Material
    models: Models
    task: str
    seed: int

    def targets(self) -> Iterator[TargetVariant]:
        """What every adversarial image of the task is shown to."""
        study, task, material = self.study, self.task, self.material
        yield self._encoder("pretrained", None)
        if task in study.with_expert:
            yield self._encoder("expert", self.models.ingredients[task])
        for group in self.models.merges:
            if group.serves(task):
                yield self._merge(group.encoder, group.inside, group.labels)
        for label, state in self.models.released.items():
            yield self._encoder(label, state)
        for spec in study.targets:
            if task in spec.places:
                yield BlackBoxVariant(
                    columns={spec.label: 0},
                    task=task,
                    head=material.heads[task],
                    of=material.tasks[task],
                    place=spec.places[task],
                    says=spec.answer,
                    version=spec.version,
                    spec=spec,
                )
        for label in study.defended:
            yield self._defended(label)

    def surrogate(self, spec: SurrogateSpec) -> SurrogateVariant:
        """The models behind a surrogate that attacks the task."""
        label, references = spec.label, spec.references
        if len(references) > 1:
            return EnsembleVariant(
                columns={label: 0},
                task=self.task,
                head=self.material.heads[self.task],
                backbone=self.material.backbone,
                members={
                    member: self._state(reference)
                    for member, reference in zip(spec.members, references, strict=True)
                },
                combine=spec.combine,
            )
        (reference,) = references
        if reference.kind == OTHER_ARCHITECTURE:
            backbone, head = self.material.others[self.task]
            state = self.models.others[self.task]
            return EncoderVariant(columns={label: 0}, task=self.task, head=head, backbone=backbone, encoder=state)
        if reference.kind == "merged":
            defended = label in self.study.defended
            return self._defended(label).known(self.seed) if defended else self._named(label)
        if reference.kind in KNOWING:
            assert reference.name is not None, "always named"
            # What stands before a model is the same before any other, so that here the two are one.
            expert = self._encoder(label, self.models.ingredients[self.task])
            known = self._defended(reference.name).known(self.seed, expert)
            return replace(known, columns={label: 0})
        return self._encoder(label, self._state(reference))

    def _defended(self, label: str) -> DefendedVariant:
        """A merge, or a model made elsewhere, behind a defense."""
        spec = next(spec for spec in self.study.defenses if label in spec.labels)
        of = spec.labels[label]
        return DefendedVariant(
            columns={label: 0},
            task=self.task,
            head=self.material.heads[self.task],
            defense=spec.name,
            parameters=spec.parameters,
            of=self._named(of),
            plugins=plugins(DEFENSES.check(spec.name)),
        )

    def _named(self, label: str) -> EncoderVariant:
        """A merge, or a model made elsewhere, by itself."""
        for group in self.models.merges:
            if label in group.labels and group.serves(self.task):
                return self._merge(group.encoder, group.inside, {label: group.labels[label]})
        return self._encoder(label, self.models.released[label])

    def _encoder(self, label: str, state: Input[State] | None) -> EncoderVariant:
        return self._merge(state, None, {label: None})

    def _merge(
        self,
        state: Input[State] | None,
        inside: Input[Tensors] | None,
        labels: Mapping[str, Input[Tensors] | None],
    ) -> EncoderVariant:
        adapters = sorted(set(labels.values()), key=lambda made: "" if made is None else made.key)
        return EncoderVariant(
            columns={label: adapters.index(made) for label, made in labels.items()},
            task=self.task,
            head=self.material.heads[self.task],
            backbone=self.material.backbone,
            encoder=state,
            inside=inside,
            adapters=tuple(adapters),
        )

    def _state(self, reference: Reference) -> Input[State] | None:
        """One encoder of the study's architecture; None for the pretrained one."""
        kind, name = reference
        ingredients = self.models.ingredients
        match kind:
            case "pretrained":
                return None
            case "expert" | "ingredient":
                return ingredients[name or self.task]
            case "other_expert":
                names = [*ingredients]
                following = names.index(self.task) + 1 if self.task in names else 0
                return ingredients[names[following % len(names)]]
            case surrogates.OWN_MERGE:
                return self.models.own_merges[name or OWN_METHOD]
            case surrogates.UNSEEN:
                return self.models.unseen[self.task]
            case _:
                assert kind == OUTSIDER, kind
                return self.models.outsiders[self.task]
