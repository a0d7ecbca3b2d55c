"""From a study to a graph of stages, each with the key under which its result is kept.

Adversarial images depend on surrogate, task, attack, budget and seed, not on any merge: a ``craft`` stage makes
them once, and an ``evaluate`` stage per encoder shows the whole sweep of budgets to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mergerisk.merging.catalogue import CORRECTIONS, METHODS, split_name
from mergerisk.models.loading import backbone_identity, folder_identity
from mergerisk.store.keys import content_key
from mergerisk.tasks.loading import TaskSource, file_digest, task_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from mergerisk.store.keys import Json
    from mergerisk.store.store import Store
    from mergerisk.study.schema import MethodSpec, Study

STAGE_VERSIONS = {
    "task": 1,
    "head": 1,
    "expert": 1,
    "merge": 2,
    "correct": 2,
    "clean": 1,
    "craft": 1,
    "evaluate": 1,
}
"""Raised when a stage's code changes what it computes, so that older artefacts are no longer taken for it."""

FORWARD, GRADIENT, TRAINING = 1.0, 2.5, 3.5
"""Cost of one image in units of a forward pass: forward only, to the input and back, to the weights and back."""


@dataclass(frozen=True)
class Stage:
    """A piece of work whose result is kept.

    Attributes:
        kind: one of :data:`STAGE_VERSIONS`.
        label: what it is about, for people.
        parameters: what its result depends on, besides its inputs.
        inputs: role → key of another stage.
        sources: where to find what ``parameters`` identify by digest; not part of the key.
        images: images passed through a model, by ``forward``, ``gradient`` and ``training``.
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
        costs = {"forward": FORWARD, "gradient": GRADIENT, "training": TRAINING}
        return sum(costs[how] * count for how, count in self.images.items())

    def to_message(self) -> dict[str, Any]:
        """As plain data, for a worker."""
        return asdict(self)


@dataclass(frozen=True)
class EncoderGroup:
    """Targets of one task that share an encoder, and so a forward pass.

    Attributes:
        encoder: key of the stage that makes it; None for the pretrained base.
        targets: target label → key of the stage that makes its adapters, or None.
        correction: key of the stage that makes what is put inside the encoder, or None.
    """

    encoder: str | None
    targets: Mapping[str, str | None]
    correction: str | None = None

    @property
    def variants(self) -> list[str | None]:
        """The distinct classifiers: adapter keys, None (no adapter) first."""
        return sorted(set(self.targets.values()), key=lambda key: key or "")


@dataclass(frozen=True)
class Evaluation:
    """Where the predictions of one group are kept."""

    group: EncoderGroup
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
    """One attack on one task from one surrogate, at every budget."""

    seed: int
    task: str
    attack: str
    surrogate: str
    epsilons: tuple[float, ...]
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

    return frozenset(
        spec.label for spec in study.attacks if create(spec.name, **spec.parameters).gradients_per_image == 1
    )


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
                groups = (
                    EncoderGroup(None, {"pretrained": None}),
                    EncoderGroup(experts[task], {"expert": None}),
                    *merges,
                )
                run = TaskRun(
                    seed,
                    task,
                    task_key,
                    heads[task],
                    tuple(Evaluation(group, self._clean(task, task_key, heads[task], group)) for group in groups),
                )
                task_runs.append(run)
                sweeps += list(self._sweeps(run, experts[task], groups))
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
        return [EncoderGroup(merge, targets, inside) for (merge, inside), targets in groups.items()]

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

    def _clean(self, task: str, task_key: str, head_key: str, group: EncoderGroup) -> str:
        inputs = {"task": task_key, "head": head_key, **_group_inputs(group)}
        parameters = self._group_parameters(task, group)
        label = f"{task} on {', '.join(group.targets)}"
        return self._add(Stage("clean", label, parameters, inputs, self.sources, {"forward": 400}))

    def _group_parameters(self, task: str, group: EncoderGroup) -> dict[str, Json]:
        return {"backbone": self.identity, "task": task, "plain": None in group.variants}

    def _sweeps(self, run: TaskRun, expert: str, groups: tuple[EncoderGroup, ...]) -> Iterator[Sweep]:
        from mergerisk.attacks import create

        count = self.study.images_per_task
        epsilons = self.study.budgets.epsilon
        surrogate_keys = {"expert": expert, "pretrained": None}
        for surrogate in self.study.surrogates:
            for spec in self.study.attacks:
                gradients = create(spec.name, **spec.parameters).gradients_per_image
                name = f"{spec.label} on {run.task} from {surrogate}"
                inputs = {"task": run.task_key, "head": run.head_key}
                if surrogate_keys[surrogate] is not None:
                    inputs["encoder"] = str(surrogate_keys[surrogate])
                crafted = tuple(
                    self._add(
                        Stage(
                            "craft",
                            f"{name}, ε = {epsilon * 255:g}/255, seed {run.seed}",
                            {
                                "backbone": self.identity,
                                "attack": spec.name,
                                "parameters": spec.parameters,
                                "epsilon": epsilon,
                                "images": count,
                                "seed": run.seed,
                            },
                            inputs,
                            self.sources,
                            {"gradient": count * gradients},
                        )
                    )
                    for epsilon in epsilons
                )
                evaluations = tuple(
                    Evaluation(group, self._evaluate(name, run, crafted, group)) for group in groups
                )
                yield Sweep(run.seed, run.task, spec.label, surrogate, epsilons, crafted, evaluations)

    def _evaluate(self, name: str, run: TaskRun, crafted: tuple[str, ...], group: EncoderGroup) -> str:
        inputs = {"head": run.head_key, **_group_inputs(group)}
        inputs |= {f"crafted/{position:03d}": key for position, key in enumerate(crafted)}
        return self._add(
            Stage(
                "evaluate",
                f"{name} against {', '.join(group.targets)}",
                self._group_parameters(run.task, group),
                inputs,
                self.sources,
                {"forward": self.study.images_per_task * len(crafted)},
            )
        )


def _read_images(parameters: Mapping[str, Any], tasks: int) -> dict[str, int]:
    """What a data-driven method passes through models: by its steps, or else by the examples it looks at."""
    if "steps" not in parameters:
        return {"gradient": parameters.get("examples", 256) * tasks}
    drawn = parameters.get("batches", 1) * parameters.get("batch_size", 1)
    return {"training": parameters["steps"] * drawn * tasks}


def _expert_identity(path: Path) -> Json:
    return folder_identity(path) if path.is_dir() else file_digest(path)


def _group_inputs(group: EncoderGroup) -> dict[str, str]:
    inputs = {} if group.encoder is None else {"encoder": group.encoder}
    if group.correction is not None:
        inputs["correction"] = group.correction
    adapters = [key for key in group.variants if key is not None]
    return inputs | {f"adapters/{position:03d}": key for position, key in enumerate(adapters)}


def image_counts(stages: Iterable[Stage]) -> Counter[str]:
    """Images passed through models, by ``forward``, ``gradient`` and ``training``."""
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(stage.images)
    return total
