"""From a study to a graph of stages, each with the key under which its result is kept.

Adversarial images depend on surrogate, task, attack, budget and seed, not on any merge: a ``craft`` stage makes
them once, and an ``evaluate`` stage per encoder shows the whole sweep of budgets to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.attacks.parts import FILTERS, INPUTS
from mergerisk.merging.catalogue import CORRECTIONS, METHODS, split_name
from mergerisk.models.loading import backbone_identity, has_batch_norm, text_identity
from mergerisk.models.templates import templates_for
from mergerisk.registry import plugins
from mergerisk.study.groups import Architecture, Backbone, BlackBoxGroup, EncoderGroup, EnsembleGroup
from mergerisk.study.heads import classifier_of, names_for_prompts
from mergerisk.study.specs import OTHER_ARCHITECTURE, OUTSIDER, Outsider
from mergerisk.study.stage import STAGE_VERSIONS, Stage
from mergerisk.study.work import read_images, sizes_of
from mergerisk.tasks.loading import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mergerisk.models.stated import StatedPreprocessing
    from mergerisk.store.keys import Json
    from mergerisk.store.store import Store
    from mergerisk.study.groups import TargetGroup
    from mergerisk.study.schema import Study
    from mergerisk.study.specs import AttackSpec, MethodSpec, Reference, SurrogateSpec
    from mergerisk.study.work import Sizes
    from mergerisk.tasks.loading import TaskSource
    from mergerisk.tasks.outline import Outline


@dataclass(frozen=True)
class Evaluation:
    """Where the predictions of one group are kept."""

    group: TargetGroup
    key: str


@dataclass(frozen=True)
class TaskRun:
    """One task under one seed, and where its parts are kept."""

    seed: int
    task: str
    task_key: str
    head_key: str
    clean: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Sweep:
    """One attack on one task from one surrogate, at every budget.

    Attributes:
        steps: after how many outcomes are kept, the attack's own number last.
    """

    seed: int
    task: str
    attack: str
    surrogate: str
    epsilons: tuple[float, ...]
    steps: tuple[int, ...]
    crafted: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run, and how their results make up the study's.

    Attributes:
        stages: by key; inputs come before what needs them.
        task_runs: every task under every seed.
        sweeps: every curve's crafting and evaluations.
        notes: what one must know to read the results, in sentences.
    """

    study: Study
    stages: Mapping[str, Stage]
    task_runs: tuple[TaskRun, ...]
    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Plan({self.study.name!r}: {len(self.stages)} stages, {len(self.sweeps)} sweeps)"

    def missing(self, store: Store) -> list[Stage]:
        """Stages whose results are not in the store."""
        return [stage for key, stage in self.stages.items() if not store.has(key)]


def make_plan(
    study: Study,
    notes: tuple[str, ...] = (),
    outlines: Mapping[TaskSource, Outline] | None = None,
) -> Plan:
    """The plan of a resolved study.

    Args:
        study: what is planned.
        notes: what one must know to read its results; see :mod:`mergerisk.study.notes`.
        outlines: of its tasks, where they are known, to count images by; of others they are looked up, or
            assumed of what is not downloaded yet.

    Raises:
        UserError: a file that the study names cannot be read.
    """
    return replace(_Planner(study, outlines or {}).plan(), notes=notes)


def single_step_attacks(study: Study) -> frozenset[str]:
    """Labels of the attacks that take one step."""
    from mergerisk.attacks import create

    return frozenset(spec.label for spec in study.attacks if create(spec.name, **spec.parameters).iterations == 1)


@dataclass(frozen=True)
class _Material:
    """What exists once per task, whatever the seed: keys of the stages that make it.

    Attributes:
        tasks: task → its images.
        heads: task → its head on the study's backbone.
        others: task → the other architecture and its head, if the study has one.
    """

    tasks: Mapping[str, str]
    heads: Mapping[str, str]
    others: Mapping[str, Architecture]


@dataclass(frozen=True)
class _Models:
    """The encoders of one seed: keys of the stages that make them.

    Attributes:
        ingredients: what is merged, in the order of the recipe: experts by task, others by name.
        outsiders: task → the outsider that attacks it.
        others: task → encoder of the other architecture; None for its pretrained one.
        released: target → a model made elsewhere.
        merges: groups of merges that share an encoder.
    """

    ingredients: Mapping[str, str]
    outsiders: Mapping[str, str]
    others: Mapping[str, str | None]
    released: Mapping[str, str]
    merges: tuple[EncoderGroup, ...]


class _Planner:
    """Collects stages; equal work is one stage."""

    def __init__(self, study: Study, outlines: Mapping[TaskSource, Outline]) -> None:
        self.study = study
        self.outlines = outlines
        self.sizes: dict[str, Sizes] = {}
        """By the key of the stage that makes the task."""
        self.stages: dict[str, Stage] = {}
        self.backbone = _backbone(study.backbone, study.image_size, study.preprocessing)
        self.tasks = {spec.source.name: spec.source for spec in study.tasks}
        self.batch_norm = has_batch_norm(study.backbone, image_size=study.image_size)
        self.attacks = [_plan_attack(spec, study.budgets.after) for spec in study.attacks]

    def plan(self) -> Plan:
        material = self._material()
        task_runs, sweeps = [], []
        for seed in self.study.seeds:
            models = self._models(material, seed)
            for task, task_key in material.tasks.items():
                surrogates = {
                    spec.label: self._surrogate(spec, task, material, models) for spec in self.study.surrogates
                }
                targets = self._targets(task, task_key, models)
                known = {label for group in targets for label in group.targets}
                own = {label: group for label, group in surrogates.items() if label not in known}
                clean = tuple(
                    Evaluation(group, self._clean(task, material, group)) for group in (*targets, *own.values())
                )
                run = TaskRun(seed, task, task_key, material.heads[task], clean)
                task_runs.append(run)
                for label, group in surrogates.items():
                    # Others' own surrogates are shown nothing: no figure asks for it.
                    shown = (*targets, group) if label in own else targets
                    sweeps += list(self._sweeps(run, label, group, shown))
        return Plan(self.study, self._ordered(), tuple(task_runs), tuple(sweeps))

    def _add(self, stage: Stage) -> str:
        self.stages.setdefault(stage.key, stage)
        return stage.key

    def _ordered(self) -> dict[str, Stage]:
        """Models first: what the most stages wait for should not wait behind crafting."""
        kinds = list(STAGE_VERSIONS)
        return dict(sorted(self.stages.items(), key=lambda item: kinds.index(item[1].kind)))

    def _material(self) -> _Material:
        tasks = {name: self._task(source) for name, source in self.tasks.items()}
        heads = {name: self._head(source, tasks[name]) for name, source in self.tasks.items()}
        other = self.study.other_architecture
        others = {}
        if other is not None:
            backbone = _backbone(other.backbone, other.image_size, other.preprocessing)
            others = {
                task: Architecture(backbone, self._probe(task, key, backbone)) for task, key in tasks.items()
            }
        return _Material(tasks, heads, others)

    def _models(self, material: _Material, seed: int) -> _Models:
        ingredients = {task: self._expert(task, material, seed) for task in self.study.with_expert}
        ingredients |= {name: self._load(name, file) for name, file in self.study.ingredients.items()}
        outsiders, data = self._outsiders(material, seed)
        if OUTSIDER in self.study.merged_names:
            ingredients[OUTSIDER] = next(iter(outsiders.values()))
        calibration = {
            f"{kind}/{task}": keys[task]
            for kind, keys in (("task", material.tasks), ("head", material.heads))
            for task in self.study.with_expert
        }
        if OUTSIDER in ingredients:
            calibration |= data
        return _Models(
            ingredients,
            outsiders,
            {task: self._other(task, material, seed) for task in material.others},
            {spec.label: self._load(spec.label, spec.encoder) for spec in self.study.targets if spec.encoder},
            tuple(self._merges(ingredients, calibration, seed)),
        )

    def _task(self, source: TaskSource) -> str:
        key = self._add(Stage("task", source.name, source.identity(), sources=source.sources()))
        if key not in self.sizes:
            self.sizes[key] = sizes_of(source, self.outlines)
        return key

    def _attacked(self, task_key: str) -> int:
        """Attacked images of a task."""
        return min(self.study.images_per_task, self.sizes[task_key].test)

    def _pools(self, inputs: Mapping[str, str]) -> list[int]:
        """Images that a method may read, per task."""
        sizes = [self.sizes[key] for role, key in inputs.items() if role.startswith("task/")]
        return [size.test if self.study.calibration == "test" else size.calibration for size in sizes]

    def _head(self, source: TaskSource, task_key: str) -> str:
        """The head that every encoder carries for a task."""
        heads, task, inputs = self.study.heads.source, source.name, {"task": task_key}
        if heads == "linear_probe":
            return self._probe(task, task_key, self.backbone)
        if heads == "zero_shot":
            text = text_identity(self.study.backbone)
            parameters: dict[str, Json] = {"zero_shot": self._prompts(task, source.spec), "text": {**text}}
            return self._add(Stage("head", task, parameters, inputs, self.backbone.sources))
        if heads == "files":
            spec = self.study.heads.files[task]
            return self._add(Stage("head", task, {"file": file_digest(Path(spec))}, inputs, {"file": spec}))
        from mergerisk.models.heads import head_identity  # PyTorch: a report plans nothing

        spec = classifier_of(self.study, task)
        parameters = {"checkpoint": {**head_identity(spec)}}
        sources = {"file": spec, "backbone": self.study.backbone}
        if spec != self.study.backbone and self.study.backbone.startswith("timm:"):
            parameters["of"] = self.study.backbone  # which tells what its classifier is called
        return self._add(Stage("head", task, parameters, inputs, sources))

    def _prompts(self, task: str, spec: str) -> dict[str, Json]:
        """What a zero-shot head is made of; no class names for the task's own."""
        names = names_for_prompts(self.study, task, spec)
        return {
            "templates": list(self.study.heads.templates.get(task) or templates_for(task)),
            "class_names": None if names is None else list(names),
        }

    def _probe(self, task: str, task_key: str, backbone: Backbone) -> str:
        parameters = {"backbone": backbone.identity, "regularization": self.study.heads.regularization}
        images = {"forward": self.sizes[task_key].train}
        return self._add(Stage("head", task, parameters, {"task": task_key}, backbone.sources, images))

    def _load(self, name: str, spec: str) -> str:
        """A model made elsewhere."""
        from mergerisk.models.experts import expert_identity

        parameters: dict[str, Json] = {"backbone": self.backbone.identity, "file": {**expert_identity(spec)}}
        return self._add(Stage("expert", name, parameters, {}, {**self.backbone.sources, "file": spec}))

    def _expert(self, task: str, material: _Material, seed: int) -> str:
        file = self.study.experts.files.get(task)
        if file is not None:
            return self._load(task, file)
        return self._fine_tune(task, material.tasks[task], material.heads[task], self.backbone, {}, seed)

    def _fine_tune(
        self,
        task: str,
        task_key: str,
        head: str,
        backbone: Backbone,
        changes: Mapping[str, Any],
        seed: int,
        who: str = "",
    ) -> str:
        recipe = {**self.study.experts.fine_tune, **changes}
        parameters = {"backbone": backbone.identity, "fine_tune": recipe, "task": task, "seed": seed}
        images = {"training": self.sizes[task_key].train * recipe["epochs"]}
        inputs = {"task": task_key, "head": head}
        return self._add(
            Stage("expert", f"{who}{task}, seed {seed}", parameters, inputs, backbone.sources, images)
        )

    def _outsiders(self, material: _Material, seed: int) -> tuple[dict[str, str], dict[str, str]]:
        """Task → the outsider that attacks it, and what a merge that reads images may read of the outsider's."""
        kinds = {reference.kind for spec in self.study.surrogates for reference in spec.references}
        if OUTSIDER not in kinds and self.study.outsider is None:
            return {}, {}
        outsider = self.study.outsider or Outsider()
        seed += outsider.seed
        if outsider.file is not None:
            return dict.fromkeys(self.tasks, self._load(OUTSIDER, outsider.file)), {}
        if outsider.task is None:
            return {
                task: self._fine_tune(
                    task, key, material.heads[task], self.backbone, outsider.fine_tune, seed, "outsider on "
                )
                for task, key in material.tasks.items()
            }, {}
        source = outsider.task.source
        task_key = self._task(source)
        # Checkpoints and files bring heads for the attacked tasks only.
        probed = self.study.heads.source in {"checkpoint", "files"}
        head = self._probe(source.name, task_key, self.backbone) if probed else self._head(source, task_key)
        made = self._fine_tune(
            source.name, task_key, head, self.backbone, outsider.fine_tune, seed, "outsider on "
        )
        return dict.fromkeys(self.tasks, made), {f"task/{OUTSIDER}": task_key, f"head/{OUTSIDER}": head}

    def _other(self, task: str, material: _Material, seed: int) -> str | None:
        """The other architecture's encoder for a task."""
        other, architecture = self.study.other_architecture, material.others[task]
        assert other is not None, "others exist only with it"
        if not other.fine_tuned:
            return None
        return self._fine_tune(
            task,
            material.tasks[task],
            architecture.head,
            architecture.backbone,
            other.fine_tune,
            seed,
            "other architecture on ",
        )

    def _merges(
        self, ingredients: Mapping[str, str], calibration: Mapping[str, str], seed: int
    ) -> list[EncoderGroup]:
        inputs = {f"expert/{name}": key for name, key in ingredients.items()}
        groups: dict[tuple[str, str | None], dict[str, str | None]] = {}
        for spec in self.study.merging:
            method, correction = split_name(spec.name)
            own = {name: value for name, value in spec.parameters.items() if name != correction}
            merge = self._merge(method, own, inputs, calibration, seed)
            inside = adapters = None
            if correction is not None:
                adapters = self._correct(spec, correction, merge, {**inputs, **calibration}, seed)
                if CORRECTIONS.load(correction).changes_encoder:
                    inside, adapters = adapters, None
            groups.setdefault((merge, inside), {})[spec.label] = adapters
        return [EncoderGroup(targets, merge, inside) for (merge, inside), targets in groups.items()]

    def _merge(
        self,
        method: str,
        parameters: Mapping[str, Any],
        ingredients: Mapping[str, str],
        calibration: Mapping[str, str],
        seed: int,
    ) -> str:
        keyed: dict[str, Json] = {
            "backbone": self.backbone.identity,
            "method": method,
            "parameters": dict(parameters),
            **plugins(METHODS.check(method)),
        }
        images: dict[str, int] = {}
        inputs = dict(ingredients)
        implementation = METHODS.load(method)
        estimated = self.batch_norm and not implementation.encoder_per_task
        reads = implementation.needs_calibration or estimated
        if reads or implementation.uses_seed:
            keyed["seed"] = seed
        if reads:
            keyed["calibration"] = self.study.calibration
            inputs |= calibration
        if implementation.needs_calibration:
            images = read_images(parameters, self._pools(calibration), implementation.reads_by)
        if estimated:
            images["forward"] = images.get("forward", 0) + sum(self._pools(calibration))
        # The experts' order is part of the recipe: coefficients belong to positions.
        keyed["order"] = list(self.study.merged_names)
        return self._add(Stage("merge", f"{method}, seed {seed}", keyed, inputs, self.backbone.sources, images))

    def _correct(self, spec: MethodSpec, correction: str, merge: str, inputs: Mapping[str, str], seed: int) -> str:
        names = self.study.merged_names
        parameters: dict[str, Json] = {
            "backbone": self.backbone.identity,
            "correction": correction,
            "parameters": spec.parameters[correction],
            "seed": seed,
            "calibration": self.study.calibration,
            "order": list(names),
            **plugins(CORRECTIONS.check(correction)),
        }
        own = spec.parameters[correction]
        inside = CORRECTIONS.load(correction).changes_encoder
        pools = self._pools(inputs)
        # The merge's features and the expert's, which one that changes the encoder computes anew in every step.
        seen = {"forward": sum(pools) if inside else 2 * sum(pools)}
        images = seen | (read_images(own, pools, "training") if inside else {})
        return self._add(
            Stage(
                "correct",
                f"{spec.name}, seed {seed}",
                parameters,
                {**inputs, "merge": merge},
                self.backbone.sources,
                images,
            )
        )

    def _targets(self, task: str, task_key: str, models: _Models) -> list[TargetGroup]:
        """What every adversarial image of a task is shown to."""
        groups: list[TargetGroup] = [EncoderGroup({"pretrained": None}, None)]
        if task in self.study.with_expert:
            groups.append(EncoderGroup({"expert": None}, models.ingredients[task]))
        groups += models.merges
        groups += [EncoderGroup({label: None}, key) for label, key in models.released.items()]
        groups += [
            BlackBoxGroup({spec.label: None}, spec, task, task_key)
            for spec in self.study.targets
            if task in spec.places
        ]
        return groups

    def _surrogate(self, spec: SurrogateSpec, task: str, material: _Material, models: _Models) -> TargetGroup:
        """The models behind a surrogate that attacks a task."""
        label, references = spec.label, spec.references
        if len(references) > 1:
            members = {
                member: self._encoder(reference, task, models)
                for member, reference in zip(spec.members, references, strict=True)
            }
            return EnsembleGroup({label: None}, members, spec.combine)
        (reference,) = references
        if reference.kind == OTHER_ARCHITECTURE:
            return EncoderGroup({label: None}, models.others[task], architecture=material.others[task])
        for group in models.merges:
            if reference.kind == "merged" and reference.name in group.targets:
                return EncoderGroup({label: group.targets[label]}, group.encoder, group.correction)
        return EncoderGroup({label: None}, self._encoder(reference, task, models))

    def _encoder(self, reference: Reference, task: str, models: _Models) -> str | None:
        """One encoder of the study's architecture."""
        kind, name = reference
        match kind:
            case "pretrained":
                return None
            case "expert" | "ingredient":
                return models.ingredients[name or task]
            case "other_expert":
                names = [*models.ingredients]
                following = names.index(task) + 1 if task in names else 0
                return models.ingredients[names[following % len(names)]]
            case "merged":
                assert name is not None, "checked with the study"
                return models.released[name]
            case _:
                assert kind == OUTSIDER, kind
                return models.outsiders[task]

    def _clean(self, task: str, material: _Material, group: TargetGroup) -> str:
        inputs = {"head": group.head(material.heads[task]), **group.inputs(), "task": material.tasks[task]}
        parameters = self._group_parameters(task, group)
        key = material.tasks[task]
        work = {"forward": self.sizes[key].test * group.passes}
        if isinstance(group, BlackBoxGroup):  # each image is a query: no more than those attacked
            parameters["images"] = self.study.images_per_task
            work = {"query": self._attacked(key)}
        label = f"{task} on {', '.join(group.targets)}"
        return self._add(Stage("clean", label, parameters, inputs, self._group_sources(group), work))

    def _group_parameters(self, task: str, group: TargetGroup) -> dict[str, Json]:
        return {"backbone": group.backbone(self.backbone).identity, "task": task, **group.parameters()}

    def _group_sources(self, group: TargetGroup) -> dict[str, str]:
        return {**group.backbone(self.backbone).sources, **group.sources()}

    def _sweeps(
        self, run: TaskRun, surrogate: str, group: TargetGroup, shown: Iterable[TargetGroup]
    ) -> Iterator[Sweep]:
        budgets = self.study.budgets
        for attack in self.attacks:
            name = f"{attack.label} on {run.task} from {surrogate}"
            crafted = tuple(self._craft(name, run, attack, group, epsilon) for epsilon in budgets.epsilon)
            evaluations = tuple(
                Evaluation(target, self._evaluate(name, run, crafted, target, len(attack.steps)))
                for target in shown
            )
            yield Sweep(
                run.seed, run.task, attack.label, surrogate, budgets.epsilon, attack.steps, crafted, evaluations
            )

    def _craft(self, name: str, run: TaskRun, attack: _Attack, group: TargetGroup, epsilon: float) -> str:
        count = self.study.images_per_task
        parameters = self._group_parameters(run.task, group) | {
            **attack.parameters,
            "epsilon": epsilon,
            "norm": self.study.budgets.norm,
            "after": list(attack.steps[:-1]),
            "images": count,
            "seed": run.seed,
        }
        label = f"{name}, ε = {epsilon * 255:g}/255, seed {run.seed}"
        inputs = {"task": run.task_key, "head": group.head(run.head_key), **group.inputs()}
        sources = self._group_sources(group) | attack.sources
        images = self._attacked(run.task_key) * group.passes
        return self._add(
            Stage("craft", label, parameters, inputs, sources, {"gradient": images * attack.gradients})
        )

    def _evaluate(
        self, name: str, run: TaskRun, crafted: tuple[str, ...], group: TargetGroup, iterates: int
    ) -> str:
        inputs = {"head": group.head(run.head_key), **group.inputs()}
        inputs |= {f"crafted/{position:03d}": key for position, key in enumerate(crafted)}
        how = "query" if isinstance(group, BlackBoxGroup) else "forward"
        return self._add(
            Stage(
                "evaluate",
                f"{name} against {', '.join(group.targets)}",
                self._group_parameters(run.task, group),
                inputs,
                self._group_sources(group),
                {how: self._attacked(run.task_key) * len(crafted) * iterates * group.passes},
            )
        )


def _backbone(
    name: str, image_size: int | None, preprocessing: StatedPreprocessing | Literal["base"] | None
) -> Backbone:
    identity: dict[str, Json] = {**backbone_identity(name)}
    sources = {"backbone": name}
    if image_size is not None:
        identity["image_size"] = image_size
        sources["image_size"] = str(image_size)
    if preprocessing is not None:
        stated: Json = preprocessing if isinstance(preprocessing, str) else preprocessing.fields()
        identity["preprocessing"] = stated
        sources["preprocessing"] = json.dumps(stated)
    return Backbone(identity, sources)


@dataclass(frozen=True)
class _Attack:
    """What the planner needs of an attack.

    Attributes:
        label: what results call it.
        parameters: name and hyper-parameters, files by their digest.
        sources: where those files are.
        gradients: input gradients per image.
        steps: after how many outcomes are kept, its own number last.
    """

    label: str
    parameters: Mapping[str, Json]
    sources: dict[str, str]
    gradients: int
    steps: tuple[int, ...]


def _plan_attack(spec: AttackSpec, after: tuple[int, ...]) -> _Attack:
    from mergerisk.attacks import create

    attack = create(spec.name, **spec.parameters)
    parameters, sources = dict(spec.parameters), {}
    if "file" in parameters:
        sources["attack_file"] = str(parameters["file"])
        parameters["file"] = file_digest(Path(parameters["file"]))
    taken = attack.iterations
    keyed: dict[str, Json] = {"attack": spec.name, "parameters": parameters}
    entries = [
        ATTACKS.check(spec.name),
        *(INPUTS.check(part["input"]) for part in parameters.get("inputs", ())),
        *(FILTERS.check(part["filter"]) for part in parameters.get("gradient", ())),
    ]
    keyed |= plugins(*entries)
    return _Attack(
        spec.label,
        keyed,
        sources,
        attack.gradients_per_image,
        (*(steps for steps in after if steps < taken), taken),
    )
