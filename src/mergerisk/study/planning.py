"""From a study to a graph of stages, each with the key under which its result is kept.

Adversarial images depend on surrogate, task, attack, budget and seed, not on any merge: a ``craft`` stage makes
them once, and an ``evaluate`` stage per encoder shows the whole sweep of budgets to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.attacks.parts import FILTERS, INPUTS
from mergerisk.merging.catalogue import CORRECTIONS, METHODS, split_name
from mergerisk.models.loading import backbone_identity, folder_identity
from mergerisk.store.keys import content_key
from mergerisk.tasks.loading import TaskSource, file_digest, task_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mergerisk.store.keys import Json
    from mergerisk.store.store import Store
    from mergerisk.study.schema import AttackSpec, MethodSpec, Study, TargetSpec

STAGE_VERSIONS = {
    "task": 1,
    "head": 1,
    "expert": 1,
    "merge": 2,
    "correct": 2,
    "clean": 2,
    "craft": 2,
    "evaluate": 2,
}
"""Raised when a stage's code changes what it computes, so that older artefacts are no longer taken for it."""

COSTS = {"forward": 1.0, "query": 1.0, "gradient": 2.5, "training": 3.5}
"""Of one image, in forward passes: forward only; asked of a black box; to the input and back; to the weights
and back."""


@dataclass(frozen=True)
class Stage:
    """A piece of work whose result is kept.

    Attributes:
        kind: one of :data:`STAGE_VERSIONS`.
        label: what it is about, for people.
        parameters: what its result depends on, besides its inputs.
        inputs: role → key of another stage.
        sources: where to find what ``parameters`` identify by digest; not part of the key.
        images: images passed through a model, by what :data:`COSTS` lists.
    """

    kind: str
    label: str
    parameters: Mapping[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def recipe(self) -> dict[str, Json]:
        """What the result is the result of."""
        return {
            "stage": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
        }

    @cached_property
    def key(self) -> str:
        return content_key(self.recipe)

    @property
    def work(self) -> float:
        """Estimated cost in forward passes of one image."""
        return sum(COSTS[how] * count for how, count in self.images.items())

    def to_message(self) -> dict[str, Any]:
        """As plain data, for a worker."""
        return asdict(self)


@dataclass(frozen=True)
class TargetGroup:
    """Targets of one task that answer together.

    Attributes:
        targets: target label → key of the stage that makes its adapters, or None.
    """

    targets: Mapping[str, str | None]

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


@dataclass(frozen=True)
class EncoderGroup(TargetGroup):
    """Targets that share an encoder, and so a forward pass.

    Attributes:
        encoder: key of the stage that makes it; None for the pretrained base.
        correction: key of the stage that makes what is put inside the encoder, or None.
    """

    encoder: str | None
    correction: str | None = None

    def inputs(self) -> dict[str, str]:
        found = {"encoder": self.encoder, "correction": self.correction}
        return super().inputs() | {role: key for role, key in found.items() if key is not None}


@dataclass(frozen=True)
class EnsembleGroup(TargetGroup):
    """Several models as one.

    Attributes:
        members: model → key of the stage that makes its encoder; None for the pretrained base.
        combine: what is averaged.
    """

    members: Mapping[str, str | None]
    combine: str

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
    """

    study: Study
    stages: Mapping[str, Stage]
    task_runs: tuple[TaskRun, ...]
    sweeps: tuple[Sweep, ...]

    def missing(self, store: Store) -> list[Stage]:
        """Stages whose results are not in the store."""
        return [stage for key, stage in self.stages.items() if not store.has(key)]


def make_plan(study: Study) -> Plan:
    """The plan of a resolved study.

    Raises:
        UserError: a file that the study names cannot be read.
    """
    return _Planner(study).plan()


def single_step_attacks(study: Study) -> frozenset[str]:
    """Labels of the attacks that take one step."""
    from mergerisk.attacks import create

    return frozenset(spec.label for spec in study.attacks if create(spec.name, **spec.parameters).iterations == 1)


class _Planner:
    """Collects stages; equal work is one stage."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.stages: dict[str, Stage] = {}
        identity: dict[str, Json] = {**backbone_identity(study.backbone)}
        self.sources = {"backbone": study.backbone}
        if study.image_size is not None:
            identity["image_size"] = study.image_size
            self.sources["image_size"] = str(study.image_size)
        self.identity: Json = identity
        self.tasks = [task_source(task) for task in study.tasks]
        self.attacks = [_plan_attack(spec, study.budgets.after) for spec in study.attacks]

    def plan(self) -> Plan:
        task_keys = {source.name: self._task(source) for source in self.tasks}
        heads = {task: self._head(task, key) for task, key in task_keys.items()}
        task_runs, sweeps = [], []
        for seed in self.study.seeds:
            experts = {
                source.name: self._expert(source, task_keys[source.name], heads[source.name], seed)
                for source in self.tasks
            }
            merges = self._merges(experts, task_keys, heads, seed)
            for task, task_key in task_keys.items():
                surrogates = self._surrogates(experts[task])
                groups: list[TargetGroup] = [
                    EncoderGroup({"pretrained": None}, None),
                    EncoderGroup({"expert": None}, experts[task]),
                    *(group for group in surrogates.values() if isinstance(group, EnsembleGroup)),
                    *merges,
                    *(
                        BlackBoxGroup({spec.label: None}, spec, task, task_key)
                        for spec in self.study.targets
                        if task in spec.places
                    ),
                ]
                clean = tuple(
                    Evaluation(group, self._clean(task, task_key, heads[task], group)) for group in groups
                )
                run = TaskRun(seed, task, task_key, heads[task], clean)
                task_runs.append(run)
                sweeps += list(self._sweeps(run, surrogates, groups))
        return Plan(self.study, self._ordered(), tuple(task_runs), tuple(sweeps))

    def _add(self, stage: Stage) -> str:
        self.stages.setdefault(stage.key, stage)
        return stage.key

    def _ordered(self) -> dict[str, Stage]:
        """Models first: what the most stages wait for should not wait behind crafting."""
        kinds = list(STAGE_VERSIONS)
        return dict(sorted(self.stages.items(), key=lambda item: kinds.index(item[1].kind)))

    def _task(self, source: TaskSource) -> str:
        return self._add(
            Stage("task", source.name, source.identity(), sources={"name": source.name, "spec": source.spec})
        )

    def _head(self, task: str, task_key: str) -> str:
        parameters = {"backbone": self.identity, "regularization": self.study.heads.regularization}
        return self._add(Stage("head", task, parameters, {"task": task_key}, self.sources))

    def _expert(self, source: TaskSource, task_key: str, head_key: str, seed: int) -> str:
        file = self.study.experts.files.get(source.name)
        if file is not None:
            parameters: dict[str, Json] = {"backbone": self.identity, "file": _expert_identity(file)}
            sources = self.sources | {"file": str(file)}
            return self._add(Stage("expert", source.name, parameters, {}, sources))
        recipe = self.study.experts.fine_tune
        parameters = {"backbone": self.identity, "fine_tune": recipe, "task": source.name, "seed": seed}
        inputs = {"task": task_key, "head": head_key}
        # The split's size is known only once the task is made; a thousand is the suite's order.
        images = {"training": 1000 * recipe["epochs"]}
        return self._add(Stage("expert", f"{source.name}, seed {seed}", parameters, inputs, self.sources, images))

    def _merges(
        self, experts: Mapping[str, str], task_keys: Mapping[str, str], heads: Mapping[str, str], seed: int
    ) -> list[EncoderGroup]:
        ingredients = {f"expert/{task}": key for task, key in experts.items()}
        calibration = {f"task/{task}": key for task, key in task_keys.items()}
        calibration |= {f"head/{task}": key for task, key in heads.items()}
        groups: dict[tuple[str, str | None], dict[str, str | None]] = {}
        for spec in self.study.merging:
            method, correction = split_name(spec.name)
            own = {name: value for name, value in spec.parameters.items() if name != correction}
            merge = self._merge(method, own, ingredients, calibration, seed)
            inside = adapters = None
            if correction is not None:
                adapters = self._correct(spec, correction, merge, ingredients | calibration, seed)
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
        keyed: dict[str, Json] = {"backbone": self.identity, "method": method, "parameters": dict(parameters)}
        images = {}
        inputs = dict(ingredients)
        implementation = METHODS.load(method)
        if implementation.needs_calibration or implementation.uses_seed:
            keyed["seed"] = seed
        if implementation.needs_calibration:
            keyed["calibration"] = self.study.calibration
            inputs |= calibration
            images = _read_images(parameters, len(self.tasks))
        # The experts' order is part of the recipe: coefficients belong to positions.
        keyed["order"] = [source.name for source in self.tasks]
        return self._add(Stage("merge", f"{method}, seed {seed}", keyed, inputs, self.sources, images))

    def _correct(self, spec: MethodSpec, correction: str, merge: str, inputs: Mapping[str, str], seed: int) -> str:
        parameters: dict[str, Json] = {
            "backbone": self.identity,
            "correction": correction,
            "parameters": spec.parameters[correction],
            "seed": seed,
            "calibration": self.study.calibration,
            "order": [source.name for source in self.tasks],
        }
        own = spec.parameters[correction]
        inside = CORRECTIONS.load(correction).changes_encoder
        images = _read_images(own, len(self.tasks)) if inside else {"forward": 2 * 256 * len(self.tasks)}
        return self._add(
            Stage(
                "correct",
                f"{spec.name}, seed {seed}",
                parameters,
                {**inputs, "merge": merge},
                self.sources,
                images,
            )
        )

    def _surrogates(self, expert: str) -> dict[str, TargetGroup]:
        """Surrogate label → the models behind it."""
        keys: dict[str, str | None] = {"expert": expert, "pretrained": None}
        found: dict[str, TargetGroup] = {}
        for spec in self.study.surrogates:
            if len(spec.members) == 1:
                found[spec.label] = EncoderGroup({spec.label: None}, keys[spec.members[0]])
            else:
                members: dict[str, str | None] = {member: keys[member] for member in spec.members}
                found[spec.label] = EnsembleGroup({spec.label: None}, members, spec.combine)
        return found

    def _clean(self, task: str, task_key: str, head_key: str, group: TargetGroup) -> str:
        inputs = {"head": head_key, **group.inputs(), "task": task_key}
        parameters = self._group_parameters(task, group)
        work = {"forward": 400}
        if isinstance(group, BlackBoxGroup):  # each image is a query: no more than those attacked
            parameters["images"] = self.study.images_per_task
            work = {"query": self.study.images_per_task}
        label = f"{task} on {', '.join(group.targets)}"
        return self._add(Stage("clean", label, parameters, inputs, self._group_sources(group), work))

    def _group_parameters(self, task: str, group: TargetGroup) -> dict[str, Json]:
        return {"backbone": self.identity, "task": task, **group.parameters()}

    def _group_sources(self, group: TargetGroup) -> dict[str, str]:
        return self.sources | (group.sources() if isinstance(group, BlackBoxGroup) else {})

    def _sweeps(
        self, run: TaskRun, surrogates: Mapping[str, TargetGroup], groups: Iterable[TargetGroup]
    ) -> Iterator[Sweep]:
        budgets = self.study.budgets
        for surrogate, group in surrogates.items():
            for attack in self.attacks:
                name = f"{attack.label} on {run.task} from {surrogate}"
                crafted = tuple(self._craft(name, run, attack, group, epsilon) for epsilon in budgets.epsilon)
                evaluations = tuple(
                    Evaluation(target, self._evaluate(name, run, crafted, target, len(attack.steps)))
                    for target in groups
                )
                yield Sweep(
                    run.seed,
                    run.task,
                    attack.label,
                    surrogate,
                    budgets.epsilon,
                    attack.steps,
                    crafted,
                    evaluations,
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
        inputs = {"task": run.task_key, "head": run.head_key, **group.inputs()}
        sources = self.sources | attack.sources
        return self._add(
            Stage("craft", label, parameters, inputs, sources, {"gradient": count * attack.gradients})
        )

    def _evaluate(
        self, name: str, run: TaskRun, crafted: tuple[str, ...], group: TargetGroup, iterates: int
    ) -> str:
        inputs = {"head": run.head_key, **group.inputs()}
        inputs |= {f"crafted/{position:03d}": key for position, key in enumerate(crafted)}
        how = "query" if isinstance(group, BlackBoxGroup) else "forward"
        return self._add(
            Stage(
                "evaluate",
                f"{name} against {', '.join(group.targets)}",
                self._group_parameters(run.task, group),
                inputs,
                self._group_sources(group),
                {how: self.study.images_per_task * len(crafted) * iterates},
            )
        )


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
    plugins = sorted({entry.distribution for entry in entries} - {""})
    if plugins:  # other versions of them may craft other images
        keyed["plugins"] = plugins
    return _Attack(
        spec.label,
        keyed,
        sources,
        attack.gradients_per_image,
        (*(steps for steps in after if steps < taken), taken),
    )


def _read_images(parameters: Mapping[str, Any], tasks: int) -> dict[str, int]:
    """What a data-driven method passes through models: by its steps, or else by the examples it looks at."""
    if "steps" not in parameters:
        return {"gradient": parameters.get("examples", 256) * tasks}
    drawn = parameters.get("batches", 1) * parameters.get("batch_size", 1)
    return {"training": parameters["steps"] * drawn * tasks}


def _expert_identity(path: Path) -> Json:
    return folder_identity(path) if path.is_dir() else file_digest(path)


def image_counts(stages: Iterable[Stage]) -> Counter[str]:
    """Images passed through models, by what :data:`COSTS` lists."""
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(stage.images)
    return total
