"""From recipes to a study whose stages make and attack them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mergerisk.errors import Fault, UserError, did_you_mean, place
from mergerisk.study.fields.search import Search
from mergerisk.study.fields.surrogates import ADAPTIVE, AWARE, KNOWING, OWN_MERGE
from mergerisk.study.resolving import resolve
from mergerisk.study.schema import Study
from mergerisk.validation import findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mergerisk.recommending.recipe import Part, Recipe
    from mergerisk.study.fields.named import AttackSpec

USUAL_ATTACK = "mi_fgsm"


def to_search(study: Study) -> Study:
    """The study that recipes are tried in: held-out images under one attack, from every surrogate that holds no
    merge; its merges are still to be said.

    Args:
        study: resolved.

    Raises:
        UserError: it has no such surrogate, or not the attack that is asked for.
    """
    search = study.search or Search()
    public = tuple(
        spec for spec in study.surrogates if spec.references[0].kind not in {*KNOWING, "merged", OWN_MERGE}
    )
    if not public:
        raise UserError(Fault("recipes are chosen by attackers who hold no merge; name one", place("surrogates")))
    return study.model_copy(
        update={
            "name": f"{study.name}-search",
            "merging": (),
            "defenses": (),
            "targets": (),
            "causes": (),
            "tables": (),
            "attacks": (_attack(study, search),),
            "surrogates": public,
            "budgets": study.budgets.model_copy(update={"after": ()}),
            "images_per_task": search.images_per_task,
            "attacked": "calibration",
            "seeds": study.seeds[:1],
            "search": None,
        }
    )


def to_measure(study: Study) -> Study:
    """The study that recipes are measured in, beside its own merges as they are: whatever else a run would look
    for is left out, and black boxes are not asked.

    Args:
        study: resolved.
    """
    merging = tuple(spec for spec in study.merging if spec.intervention is None)
    targets = tuple(spec for spec in study.targets if spec.encoder)
    left = {spec.label for spec in merging} | {spec.label for spec in targets} | {*study.defended}
    return study.model_copy(
        update={
            "name": f"{study.name}-recommended",
            "description": "Recipes that were chosen on held-out images, beside the study's own merges.",
            "merging": merging,
            "targets": targets,
            "causes": (),
            "tables": (),
            "surrogates": tuple(
                spec
                for spec in study.surrogates
                if spec.references[0].kind != "merged" or spec.references[0].name in left
            ),
            "attacked": "test",
            "search": None,
        }
    )


def compose(study: Study, recipes: Iterable[Recipe]) -> tuple[Study, dict[Recipe, str]]:
    """A study with recipes among its merges and defended models, and attackers who know of every defense.

    Args:
        study: resolved; what it has stays.
        recipes: to be added.

    Returns:
        The study, resolved, and what it calls each recipe.

    Raises:
        UserError: a recipe cannot be made here.
    """
    names = _Names(study)
    labels = {recipe: names.label(recipe) for recipe in recipes}
    known = {spec.label for spec in study.surrogates}
    knowing = [name for label in names.attacked for name in names.attackers(label) if name not in known]
    fields: dict[str, Any] = {name: getattr(study, name) for name in Study.model_fields}
    fields |= {
        "merging": [*study.merging, *names.merging],
        "defenses": [*study.defenses, *names.defenses],
        "surrogates": [*study.surrogates, *knowing],
    }
    try:
        made = Study.model_validate(fields)
    except ValidationError as error:
        raise UserError(*findings(error, Study.model_fields)) from error
    return resolve(made), labels


class _Names:
    """What recipes, and what is behind their defenses, are called; each is made once.

    Args:
        study: that they are added to.
    """

    def __init__(self, study: Study) -> None:
        self._taken = {*study.target_labels, *(spec.label for spec in study.surrogates)}
        self._known: dict[tuple[Part, ...], str] = {}
        self._given = [(spec.name, spec.parameters, spec.label) for spec in study.merging]
        self._parts: dict[str, tuple[Part, ...]] = {}
        self.merging: list[dict[str, Any]] = []
        self.defenses: list[dict[str, Any]] = []
        self.attacked: list[str] = []

    def label(self, recipe: Recipe) -> str:
        """What a recipe is called."""
        found = self._of((recipe.merge, *recipe.defenses))
        if recipe.defenses and found not in self.attacked:
            self.attacked.append(found)
        return found

    def attackers(self, label: str) -> list[str]:
        """Those who know how a recipe is defended. What stands before a model changes none of its weights, so that
        to go through it is another attack only where the weights were changed too."""
        from mergerisk.defenses import Defense
        from mergerisk.defenses.catalogue import DEFENSES

        before = [issubclass(DEFENSES.load(part.name), Defense) for part in self._parts[label][1:]]
        return [f"{AWARE}/{label}", *([f"{ADAPTIVE}/{label}"] if before[-1] and not all(before) else [])]

    def _of(self, parts: tuple[Part, ...]) -> str:
        if parts in self._known:
            return self._known[parts]
        *behind, last = parts
        if not behind:
            given = next((label for name, said, label in self._given if _same(last, name, said)), None)
            label = given or self._free(last.name)
            if given is None:
                self.merging.append({"method": last.name, **last.parameters, "label": label})
        else:
            of = self._of(tuple(behind))
            label = self._free(f"{of}+{last.name}")
            self.defenses.append({"defense": last.name, "of": [of], **last.parameters, "label": label})
        self._known[parts] = label
        self._parts[label] = parts
        return label

    def _free(self, wanted: str) -> str:
        label, number = wanted, 2
        while label in self._taken:
            label, number = f"{wanted}-{number}", number + 1
        self._taken.add(label)
        return label


def _same(part: Part, name: str, parameters: dict[str, Any]) -> bool:
    """Whether a merge of the study is the one that a recipe begins with."""
    from mergerisk.merging import create

    return part.name == name and create(name, **part.parameters) == create(name, **parameters)


def _attack(study: Study, search: Search) -> AttackSpec:
    """The attack that recipes are chosen by."""
    from mergerisk.attacks import create

    labels = [spec.label for spec in study.attacks]
    if search.attack is not None:
        if search.attack not in labels:
            unknown = f"no attack {search.attack!r} in the study{did_you_mean(search.attack, labels)}"
            raise UserError(Fault(unknown, place("search", "attack")))
        return study.attacks[labels.index(search.attack)]
    usual = [spec for spec in study.attacks if spec.name == USUAL_ATTACK]
    several: Sequence[AttackSpec] = [
        spec for spec in study.attacks if create(spec.name, **spec.parameters).iterations > 1
    ]
    return next(iter((*usual, *several, *study.attacks)))
