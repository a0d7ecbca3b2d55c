"""What defends models, as a study file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import Fault, UserError, did_you_mean, place
from mergerisk.study.fields.basics import looks, no_twins
from mergerisk.study.fields.named import Named
from mergerisk.study.fields.names import ModelName  # noqa: TC001  # pydantic reads it
from mergerisk.study.fields.surrogates import Reference
from mergerisk.study.fields.written import TEXT, AlsoWritten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic.json_schema import JsonSchemaValue

_OWN_KEYS = ("of", "stage", "ingredients", "public", "images", "robust", "beside")
"""What an entry says besides the defense's hyper-parameters."""


class DefenseSpec(Named):
    """A defense of merges, of models made elsewhere, or of models that are defended already:
    ``{defense: bit_depth, of: [ties], bits: 3}``, ``{defense: pubdef, of: ties, label: trained}``.

    Attributes:
        of: what is defended, by its label; each gives one target.
        stage: of a defense that trains: whether the merge is trained, or its ingredients are before they are
            merged, or the base is before they are fine-tuned from it.
        ingredients: which of them are trained before merging: ``all``; ``all_but_attacked``, since the attacked
            task's own expert is public as it is; or ``attacked``, that one alone: then a merge for each task.
        public: the public models that a training defense looks at, as in ``surrogates``.
        images: of a defense that trains and reads no labels: which it learns from; training images by default.
        robust: of a defense that takes a robust base: folder, file or hub id of one that there is already.
        beside: of a detector: the public model that the defended one is compared with, as in ``surrogates``; the
            attacked task's expert by default.
    """

    key: ClassVar[str] = "defense"

    of: Annotated[tuple[str, ...], Field(min_length=1), AlsoWritten(TEXT)]
    stage: Literal["after_merging", "before_merging", "before_fine_tuning"] | None = None
    ingredients: Literal["all", "all_but_attacked", "attacked"] | None = None
    public: Annotated[Annotated[tuple[str, ...], Field(min_length=1)] | None, AlsoWritten(TEXT)] = None
    images: Literal["training", "calibration"] | None = None
    robust: ModelName | None = None
    beside: str | None = None

    @classmethod
    def written(cls, fields: JsonSchemaValue) -> JsonSchemaValue:
        """What a mapping says besides hyper-parameters; see the base class."""
        values = {"type": "array", "minItems": 1}
        swept = {"type": "object", "additionalProperties": values, "minProperties": 1, "maxProperties": 1}
        meaning = "a hyper-parameter and its values: a defended model for each, called LABEL@VALUE"
        return super().written(fields) | {"sweep": swept | {"description": meaning}}

    @classmethod
    def taken_apart(cls, value: object) -> dict[str, Any]:
        """The fields, from what a study file says; see the base class."""
        given = value.get("of") if isinstance(value, dict) else None
        if not given or not isinstance(value, dict):
            raise ValueError("say what is defended: of: [LABEL, …]")
        parsed = super().taken_apart(value)
        own = {key: parsed["parameters"].pop(key) for key in _OWN_KEYS if key in value}
        listed = {key: [own[key]] for key in ("of", "public") if isinstance(own.get(key), str)}
        return parsed | own | listed

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> DefenseSpec:
        if looks(info):
            DEFENSES.check(self.name)
        no_twins([*self.of], "defended model")
        no_twins([*(self.public or ())], "public model")
        _ = self.references
        return self

    @property
    def labels(self) -> Mapping[str, str]:
        """What results call each defended model (``ties+bit_depth``, or the label of one) → what is defended."""
        if len(self.of) == 1 and self.label.partition("@")[0] != self.name:
            return {self.label: self.of[0]}
        return {f"{of}+{self.label}": of for of in self.of}

    @property
    def stands_before(self) -> bool:
        """Whether it stands before models, and changes none."""
        from mergerisk.defenses import Defense, Detector

        return issubclass(DEFENSES.load(self.name), Defense | Detector)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The public models that are looked at, or compared with, taken apart."""
        beside = () if self.beside is None else (self.beside,)
        return tuple(Reference.parse(name) for name in (*(self.public or ()), *beside))

    def as_written(self) -> object:
        """As a study file says it."""
        own: dict[str, object] = {"of": list(self.of), "stage": self.stage, "ingredients": self.ingredients}
        own |= {"public": None if self.public is None else list(self.public), "images": self.images}
        own |= {"robust": self.robust, "beside": self.beside}
        given = {key: value for key, value in own.items() if value is not None}
        return {self.key: self.name, **given, **self.parameters, "label": self.label}


def each_defense(entries: Any) -> Any:
    """The entries of ``defenses``, with one for every value of what an entry sweeps.

    Raises:
        ValueError: one sweeps nothing, or more than one hyper-parameter, or a value is given twice.
    """
    if not isinstance(entries, list | tuple):
        return entries
    return [spec for entry in entries for spec in _each_of(entry)]


Defenses = Annotated[tuple[DefenseSpec, ...], BeforeValidator(each_defense)]
"""``defenses`` of a study or an audit."""


def _each_of(entry: object) -> Iterator[object]:
    """What one entry stands for: ``sweep: {NAME: [VALUE, …]}`` is a defense for each value of a hyper-parameter,
    called ``LABEL@VALUE``."""
    if not isinstance(entry, dict) or "sweep" not in entry:
        yield entry
        return
    swept = entry["sweep"]
    if not isinstance(swept, dict) or len(swept) != 1 or not isinstance(next(iter(swept.values())), list):
        raise ValueError("sweep: name one hyper-parameter and its values: sweep: {scale: [0.5, 1]}")
    ((name, values),) = swept.items()
    if not values or name in entry:
        fault = f"{name} is given beside it" if values else f"give {name} one value at least"
        raise ValueError(f"sweep: {fault}")
    rest = {key: value for key, value in entry.items() if key != "sweep"}
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"sweep: {name} {value} is given twice")
        called = f"{value:g}" if isinstance(value, float) else str(value)
        yield rest | {name: value, "label": f"{entry.get('label', entry.get('defense'))}@{called}"}


def check_defended(defended: Mapping[str, str], known: Collection[str], black_boxes: Collection[str]) -> None:
    """See that what is defended exists, can be seen into, and is not its own defense.

    Args:
        defended: label → what is defended.
        known: labels of merges, and of models made elsewhere.
        black_boxes: labels of what can only be asked.

    Raises:
        UserError: it does not.
    """
    for label, of in defended.items():
        where = place("defenses", item=label)
        if of in black_boxes:
            asked = f"{of} is a black box, which can only be asked; its owner alone can defend it"
            raise UserError(Fault(asked, where))
        if of not in known and of not in defended:
            near = did_you_mean(of, [*known, *defended])
            raise UserError(Fault(f"no merge or model {of!r}{near}", where))
        below, behind = of, {label}
        while below in defended:
            if below in behind:
                raise UserError(Fault("defends itself, in the end; name a merge or a model", where))
            behind.add(below)
            below = defended[below]


def behind_all(label: str, defended: Mapping[str, str]) -> str:
    """What is behind a defended model's defense, and behind those behind it.

    Args:
        label: of the defended model.
        defended: label → what is defended, none of which is its own defense.
    """
    while label in defended:
        label = defended[label]
    return label
