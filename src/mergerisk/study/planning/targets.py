"""Who is attacked on a task, and with whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mergerisk.attacks.catalogue import ENSEMBLE_ALGORITHMS
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.registry import plugins
from mergerisk.study.fields.surrogates import AWARE, KNOWING, OTHER_ARCHITECTURE, OWN_METHOD
from mergerisk.study.fields.targets import ENSEMBLE, ROUTED
from mergerisk.study.hardening import behind, detects, hidden_by, spec_of, stands_before
from mergerisk.study.kinds.set_threshold import SetThreshold
from mergerisk.study.planning.merges import own_method
from mergerisk.study.variants.black_box import BlackBoxVariant
from mergerisk.study.variants.defended import DefendedVariant
from mergerisk.study.variants.detected import DetectedVariant
from mergerisk.study.variants.drawn import DrawnVariant
from mergerisk.study.variants.encoders import EncoderVariant
from mergerisk.study.variants.ensemble import EnsembleVariant, FollowedEnsembleVariant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.defenses import HidingDefense
    from mergerisk.merging.material import Tensors
    from mergerisk.models import State
    from mergerisk.study.fields.surrogates import SurrogateSpec
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
            own = ("expert", *(name for name in study.references if name == ROUTED))
            yield self._merge(self.models.ingredients[task], None, dict.fromkeys(own))
        if ENSEMBLE in study.references:
            yield EnsembleVariant(
                columns={ENSEMBLE: 0},
                task=task,
                head=material.heads[task],
                backbone=material.backbone,
                members=self.models.ingredients,
                combine="probabilities",
            )
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
                    of=material.attacked[task],
                    place=spec.places[task],
                    says=spec.answer,
                    version=spec.version,
                    spec=spec,
                )
        for label in study.defended:
            if stands_before(study, label):
                yield self._defended(label)
            elif label in self.models.hidden:
                yield self._named(label)

    def surrogate(self, spec: SurrogateSpec) -> SurrogateVariant:
        """The models behind a surrogate that attacks the task."""
        label, references = spec.label, spec.references
        if len(references) > 1:
            several: dict[str, Any] = {
                "columns": {label: 0},
                "task": self.task,
                "head": self.material.heads[self.task],
                "backbone": self.material.backbone,
                "members": {
                    member: self.models.held(reference, self.task)
                    for member, reference in zip(spec.members, references, strict=True)
                },
                "combine": spec.combine,
            }
            if spec.algorithm is None:
                return EnsembleVariant(**several)
            return FollowedEnsembleVariant(
                **several,
                algorithm=spec.algorithm.name,
                parameters=spec.algorithm.parameters,
                plugins=plugins(ENSEMBLE_ALGORITHMS.check(spec.algorithm.name)),
            )
        (reference,) = references
        if reference.kind == OTHER_ARCHITECTURE:
            backbone, head = self.material.others[self.task]
            state = self.models.others[self.task]
            return EncoderVariant(columns={label: 0}, task=self.task, head=head, backbone=backbone, encoder=state)
        if reference.kind == "merged":
            return self._known(label)
        if reference.kind in KNOWING:
            assert reference.name is not None, "always named"
            held: SurrogateVariant = self._encoder(label, self.models.ingredients[self.task])
            if reference.kind == AWARE:
                made = behind(self.study, reference.name)
                if made is not None:
                    held = self._alike(label, made)
                elif self._rejects(reference.name):
                    # An ingredient beside itself agrees with everything: they compare a merge of their own.
                    merge = self.models.planner.merge(*own_method(self.study, OWN_METHOD))
                    held = self._encoder(label, merge)
            return replace(self._known(reference.name, held), columns={label: 0})
        return self._encoder(label, self.models.held(reference, self.task))

    def _known(self, label: str, of: SurrogateVariant | None = None) -> SurrogateVariant:
        """What an attacker crafts on who knows what stands before a target.

        Args:
            label: of the target.
            of: the model that they hold; the target's own by default.
        """
        target = self._defended(label) if stands_before(self.study, label) else self._named(label)
        return target.known(self.seed, of)

    def _rejects(self, label: str) -> bool:
        """Whether a detector watches a target."""
        spec = spec_of(self.study, label)
        return spec is not None and detects(spec)

    def _defended(self, label: str) -> DefendedVariant | DetectedVariant:
        """A merge, a model made elsewhere, or a defended one, behind a defense that stands before it."""
        spec = spec_of(self.study, label)
        assert spec is not None, "only what is defended"
        of = spec.labels[label]
        shared: dict[str, Any] = {
            "columns": {label: 0},
            "task": self.task,
            "head": self.material.heads[self.task],
            "parameters": spec.parameters,
            "of": self._defended(of) if stands_before(self.study, of) else self._named(of),
            "plugins": plugins(DEFENSES.check(spec.name)),
        }
        if not detects(spec):
            return DefendedVariant(**shared, defense=spec.name)
        (reference,) = spec.references
        beside, made = self._encoder(label, self.models.held(reference, self.task)), self.material.tasks[self.task]
        threshold = self.models.planner.stages.add(
            SetThreshold(
                label=f"{label} on {self.task}, seed {self.seed}",
                plugins=shared["plugins"],
                task=made,
                detector=spec.name,
                parameters=spec.parameters,
                of=shared["of"],
                beside=beside,
                shown=self.models.planner.stages.sizes(made).calibration,
            )
        )
        return DetectedVariant(**shared, detector=spec.name, beside=beside, threshold=threshold)

    def _named(self, label: str) -> SurrogateVariant:
        """A merge, or a model made elsewhere, by itself."""
        if label in self.models.hidden:
            states = self.models.hidden[label]
            return self._several(label, label, states) or self._encoder(label, states[0])
        for group in self.models.merges:
            if label in group.labels and group.serves(self.task):
                return self._merge(group.encoder, group.inside, {label: group.labels[label]})
        return self._encoder(label, self.models.released[label])

    def _alike(self, label: str, made: str) -> SurrogateVariant:
        """What an attacker has who trains, mixes or hides as a target was."""
        states = self.models.aware[made, self.task]
        several = self._several(label, made, states) if hidden_by(self.study, made) else None
        return self._encoder(label, states[0]) if several is None else several.known(self.seed)

    def _several(
        self, label: str, made: str, states: tuple[Input[State] | None, ...]
    ) -> EnsembleVariant | DrawnVariant | None:
        """Merges whose λ and draws are a secret, as the defense of that target lets them answer; None if there is
        one merge alone."""
        spec = hidden_by(self.study, made)
        assert spec is not None, "only what is hidden"
        if len(states) == 1:
            return None
        defense: HidingDefense = DEFENSES.create(spec.name, spec.parameters)
        shared: dict[str, Any] = {
            "columns": {label: 0},
            "task": self.task,
            "head": self.material.heads[self.task],
            "backbone": self.material.backbone,
            "members": {f"{number:03d}": state for number, state in enumerate(states)},
        }
        if defense.one_for_each:
            return DrawnVariant(**shared, seed=defense.guessed(self.seed).seed)
        return EnsembleVariant(**shared, combine="probabilities")

    def _encoder(self, label: str, state: Input[State] | None) -> EncoderVariant:
        """A target that is one encoder without corrections; None stands for the backbone."""
        return self._merge(state, None, {label: None})

    def _merge(
        self,
        state: Input[State] | None,
        inside: Input[Tensors] | None,
        labels: Mapping[str, Input[Tensors] | None],
    ) -> EncoderVariant:
        """A target's encoder under several labels, which share its features: as it is, or with adapters on top."""
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
