"""Whose models the attacker holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from mergerisk.errors import did_you_mean
from mergerisk.study.fields.basics import Model, no_twins
from mergerisk.study.fields.named import AlgorithmSpec
from mergerisk.study.fields.written import name_or_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

OUTSIDER = "outsider"
OTHER_ARCHITECTURE = "other_architecture"
UNSEEN = "unseen"
AVERAGED = "averaged"
OWN_MERGE = "own_merge"
OWN_METHOD = "weight_averaging"
"""How an attacker merges unless a method is named: it asks for no hyper-parameter and no image."""

AWARE, ADAPTIVE = "aware", "adaptive"
KNOWING = (AWARE, ADAPTIVE)
"""Attackers who know how one target is defended, but do not hold it."""

WHITE_BOX = "white_box"
"""Another word for ``merged``, as it is said of defenses."""


class Reference(NamedTuple):
    """A model of the study, by what it is: ``expert``, ``expert/mnist``, ``merged/ties``.

    Attributes:
        kind: one of :data:`SURROGATES`.
        name: which, where there are several.
    """

    kind: str
    name: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """A reference from ``KIND`` or ``KIND/NAME``.

        Raises:
            ValueError: an unknown kind, or a name too many or too few.
        """
        kind, slash, name = text.partition("/")
        kind = "merged" if kind == WHITE_BOX else kind
        if kind not in SURROGATES:
            raise ValueError(f"unknown surrogate {kind!r}{did_you_mean(kind, SURROGATES)}")
        named = SURROGATES[kind].named
        if named == "always" and not name:
            raise ValueError(f"{kind}: say which: {kind}/NAME")
        if slash and (named == "never" or not name):
            raise ValueError(f"{text!r}: must be {kind!r}")
        return cls(kind, name or None)


class Scenario(NamedTuple):
    """A kind of surrogate.

    Attributes:
        named: whether a name behind a slash tells which.
        summary: whose model it is.
    """

    named: Literal["never", "may be", "always"]
    summary: str


SURROGATES: Mapping[str, Scenario] = {
    "expert": Scenario("may be", "the attacked task's expert, from the hub say; expert/TASK is another task's"),
    "pretrained": Scenario("never", "the backbone that all experts were fine-tuned from, as it is"),
    "other_expert": Scenario("never", "an expert of the wrong task: that of the next one in the study's order"),
    "ingredient": Scenario(
        "always", "a merged model that belongs to no attacked task, by its name in ingredients"
    ),
    OUTSIDER: Scenario("never", "the backbone, fine-tuned by the attacker: with another seed, or with own data"),
    UNSEEN: Scenario("never", "another such model, under a seed of its own: no defense is ever trained on it"),
    AVERAGED: Scenario(
        "never",
        "the average of checkpoints that the attacker's own fine-tuning passes at a constant learning rate",
    ),
    OTHER_ARCHITECTURE: Scenario("never", "a model that shares the task with the merge, but no weights"),
    OWN_MERGE: Scenario(
        "may be",
        "the ingredients, merged by the attacker: by weight averaging, or as a method or a label of merging says",
    ),
    AWARE: Scenario(
        "always", "the attacked task's expert, defended by the attacker as that model is; aware alone is all"
    ),
    ADAPTIVE: Scenario(
        "always",
        "the attacked task's expert as it is, seen through what stands before that model; adaptive alone is all",
    ),
    "merged": Scenario(
        "always",
        "the merge itself, by its label: white box, the upper bound; merged alone is all; of defended models also "
        "white_box",
    ),
}
"""Kinds of surrogates."""

_ALIKE = ("expert", "pretrained", "other_expert", "ingredient", OUTSIDER, UNSEEN, AVERAGED)
"""Those that are one encoder of the study's architecture under the task's head."""


class SurrogateSpec(Model):
    """A model the attacker holds: ``expert``, ``merged/ties``, or several at once:
    ``{ensemble: [expert, pretrained], combine: logits, label: both}``.

    Attributes:
        members: one of :data:`SURROGATES`, or those of an ensemble.
        combine: what an ensemble averages; see :class:`mergerisk.attacks.Ensemble`.
        algorithm: how attacks follow an ensemble, where not along the gradient of what it says together; see
            :data:`mergerisk.attacks.ENSEMBLE_ALGORITHMS`.
        label: what results call it.
    """

    members: Annotated[tuple[str, ...], Field(min_length=1)]
    combine: Literal["logits", "probabilities", "loss"] = "logits"
    algorithm: AlgorithmSpec | None = None
    label: str

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            return {"members": (value,), "label": _label(value)}
        if isinstance(value, dict) and isinstance(value.get("ensemble"), list):
            rest = {name: given for name, given in value.items() if name != "ensemble"}
            how = value.get("algorithm")
            named = how.get("algorithm") if isinstance(how, dict) else how
            label = f"ensemble-{named}" if isinstance(named, str) else "ensemble"
            return {"label": label, **rest, "members": value["ensemble"]}
        if isinstance(value, dict) and "ensemble" in value:
            raise ValueError("ensemble must be a list of surrogates")
        if not isinstance(value, cls | dict):
            raise ValueError("must be a name, or a mapping with 'ensemble'")  # noqa: TRY004
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        own = handler.resolve_ref_schema(handler(core))["properties"]
        fields = {"ensemble": own["members"], **{name: own[name] for name in ("combine", "algorithm", "label")}}
        return name_or_mapping(core, handler, fields, "ensemble", name=_written())

    @model_validator(mode="after")
    def _consistent(self) -> SurrogateSpec:
        no_twins(list(self.members), "member")
        references = [Reference.parse(member) for member in self.members]
        if len(references) == 1 and self.algorithm is not None:
            raise ValueError("algorithm: is for several models")
        if len(references) == 1:
            if self.label != _label(self.members[0]):
                raise ValueError(f"a single model is called {_label(self.members[0])!r}, not {self.label!r}")
            return self
        if self.label in SURROGATES:
            raise ValueError(f"label {self.label!r} is taken by a single model")
        for reference in references:
            if reference.kind not in _ALIKE:
                raise ValueError(f"{reference.kind} cannot be part of an ensemble; possible: {', '.join(_ALIKE)}")
        return self

    @property
    def references(self) -> tuple[Reference, ...]:
        """The members, taken apart."""
        return tuple(Reference.parse(member) for member in self.members)

    @property
    def knows(self) -> str | None:
        """The defended model that the attacker knows the defense of: what is crafted is shown to it alone. None of
        attackers who know none."""
        kind, name = self.references[0]
        return name if kind in KNOWING else None

    def as_written(self) -> object:
        """As a study file says it."""
        if len(self.members) == 1:
            return self.members[0]
        how = {} if self.algorithm is None else {"algorithm": self.algorithm.as_written()}
        return {"ensemble": list(self.members), "combine": self.combine, **how, "label": self.label}


def _label(member: str) -> str:
    """What results call a surrogate: a merge has one name, whether it is attacked or held."""
    return member.removeprefix(f"{WHITE_BOX}/").removeprefix("merged/").removeprefix("ingredient/")


def _written() -> dict[str, Any]:
    """What may stand for one model, as JSON Schema: a kind, which is all of them where it needs a name, or a kind
    with a name."""
    forms = {**SURROGATES, WHITE_BOX: SURROGATES["merged"]}
    alone = [kind for kind, scenario in forms.items() if scenario.named != "always" or kind != "ingredient"]
    named = "|".join(kind for kind, scenario in forms.items() if scenario.named != "never")
    return {"anyOf": [{"enum": alone}, {"type": "string", "pattern": f"^({named})/."}]}
