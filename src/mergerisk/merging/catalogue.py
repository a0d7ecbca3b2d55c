"""Merging methods by name, and how a name with its hyper-parameters becomes a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.merging.material import Tensors
    from mergerisk.merging.method import Correction, MergingMethod
    from mergerisk.models.core.encoder import Encoder, State

METHODS: Registry[type[MergingMethod]] = Registry(
    "merging method",
    "mergerisk.merging",
    [
        Entry(
            "weight_averaging",
            "mergerisk.merging.averaging:WeightAveraging",
            "mean of the experts' parameters, or a weighted sum",
            "arXiv 2203.05482",
        ),
        Entry(
            "task_arithmetic",
            "mergerisk.merging.averaging:TaskArithmetic",
            "base plus the scaled sum of task vectors",
            "arXiv 2212.04089",
        ),
        Entry(
            "ties",
            "mergerisk.merging.ties:Ties",
            "trim task vectors, elect signs, merge what agrees",
            "arXiv 2306.01708",
        ),
        Entry(
            "dare",
            "mergerisk.merging.dare:Dare",
            "drop entries of task vectors at random and rescale, then task arithmetic or TIES",
            "arXiv 2311.03099",
        ),
        Entry(
            "della",
            "mergerisk.merging.della:Della",
            "DARE that drops small entries more often than large ones, then elects signs and merges what agrees",
            "arXiv 2406.11617",
        ),
        Entry(
            "fisher",
            "mergerisk.merging.fisher:Fisher",
            "mean weighted by each expert's diagonal Fisher information",
            "arXiv 2111.09832",
        ),
        Entry(
            "regmean",
            "mergerisk.merging.regmean:RegMean",
            "linear layers that reproduce the experts' outputs best in least squares",
            "arXiv 2212.09849",
        ),
        Entry(
            "regmean_plus_plus",
            "mergerisk.merging.regmean_plus_plus:RegMeanPlusPlus",
            "RegMean block by block, on what the merged blocks before put out",
            "arXiv 2508.03121",
        ),
        Entry(
            "adamerging",
            "mergerisk.merging.adamerging:AdaMerging",
            "coefficients per layer learnt by minimising entropy on unlabelled images",
            "arXiv 2310.02575",
        ),
        Entry(
            "adamerging_plus_plus",
            "mergerisk.merging.adamerging:AdaMergingPlusPlus",
            "AdaMerging on trimmed, sign-elected task vectors",
            "arXiv 2310.02575",
        ),
        Entry(
            "tsv_m",
            "mergerisk.merging.tsv:TsvM",
            "each task's top singular directions, made orthogonal to one another",
            "arXiv 2412.00081",
        ),
        Entry(
            "iso_c",
            "mergerisk.merging.iso:IsoC",
            "summed task vectors with a flat singular spectrum",
            "arXiv 2502.04959",
        ),
        Entry(
            "iso_cts",
            "mergerisk.merging.iso:IsoCts",
            "the same, with directions of single tasks beside the common ones",
            "arXiv 2502.04959",
        ),
        Entry(
            "esm",
            "mergerisk.merging.esm:Esm",
            "directions in which each task changes what layers put out, made orthogonal to one another",
            "arXiv 2602.20208",
        ),
        Entry(
            "wudi",
            "mergerisk.merging.wudi:Wudi",
            "matrices whose task vector interferes least with each task's own",
            "arXiv 2503.08099",
        ),
        Entry(
            "doge_ta",
            "mergerisk.merging.doge_ta:DogeTa",
            "task arithmetic after one change to all task vectors, outside of what they share",
            "arXiv 2501.01230",
        ),
        Entry(
            "consensus",
            "mergerisk.merging.consensus:Consensus",
            "task arithmetic on the entries that matter to several tasks (TALL masks)",
            "arXiv 2405.07813",
        ),
        Entry(
            "pcb",
            "mergerisk.merging.pcb:Pcb",
            "entries balanced by competition within and between tasks",
            "arXiv 2410.02396",
        ),
        Entry(
            "breadcrumbs",
            "mergerisk.merging.breadcrumbs:Breadcrumbs",
            "task vectors without their largest and their many small entries",
            "arXiv 2312.06795",
        ),
        Entry(
            "emr",
            "mergerisk.merging.emr:Emr",
            "one elected task vector, masked and rescaled for every task",
            "arXiv 2405.17461",
        ),
        Entry(
            "model_stock",
            "mergerisk.merging.model_stock:ModelStock",
            "mean pulled towards the base by the angle between task vectors",
            "arXiv 2403.19522",
        ),
        Entry(
            "slerp",
            "mergerisk.merging.slerp:Slerp",
            "spherical interpolation of two experts",
            "Shoemake 1985",
        ),
        Entry(
            "we_moe",
            "mergerisk.merging.we_moe:WeMoE",
            "MLPs become mixtures of the experts' under a router learnt by entropy",
            "arXiv 2402.00433",
        ),
        Entry(
            "opcm",
            "mergerisk.merging.opcm:Opcm",
            "experts one after another, each outside of what those before it changed",
            "arXiv 2501.09522",
        ),
        Entry(
            "knots_ties",
            "mergerisk.merging.knots:KnotsTies",
            "TIES in a basis that the experts' low-rank changes share (KnOTS), for LoRA",
            "arXiv 2410.19735",
        ),
        Entry(
            "lines",
            "mergerisk.merging.lines:Lines",
            "around any data-free method: deeper blocks keep more of what it changed (LiNeS)",
            "arXiv 2410.17146",
        ),
        Entry(
            "svc",
            "mergerisk.merging.svc:Svc",
            "around any data-free method: singular values lowered where tasks share a direction",
            "arXiv 2602.05536",
        ),
    ],
)
"""Methods, each of which yields one encoder or one per task."""

CORRECTIONS: Registry[type[Correction]] = Registry(
    "correction",
    "mergerisk.corrections",
    [
        Entry(
            "surgery",
            "mergerisk.merging.surgery:Surgery",
            "stacked on any method (ties+surgery): per-task adapters on the merged features",
            "arXiv 2402.02705",
        ),
        Entry(
            "surgery_v2",
            "mergerisk.merging.surgery_v2:SurgeryV2",
            "stacked on any method: per-task adapters after every block",
            "arXiv 2410.14389",
        ),
    ],
)
"""What is stacked on a method with ``+``."""

INTERVENTIONS: Mapping[str, str] = {
    "path": "on the way from the base, 0, to the merge, 1",
    "placebo": "random task vectors, of the same length in each tensor",
    "ingredients": "all_but_attacked: without the attacked task's own",
    "shuffled_blocks": "one block's task vectors, in disorder within each tensor",
}
"""What a study can change about a merge to see what moves with it; see :mod:`mergerisk.merging.interventions`."""


def split_name(name: str) -> tuple[str, str | None]:
    """``"ties+surgery"`` → ``("ties", "surgery")``; both parts are checked.

    Raises:
        UserError: an unknown part, or more than one ``+``.
    """
    method, *stacked = name.split("+")
    METHODS.check(method)
    if len(stacked) > 1:
        raise UserError(f"merging method {name!r}: at most one correction can be stacked on a method")
    if not stacked:
        return method, None
    CORRECTIONS.check(stacked[0])
    return method, stacked[0]


def create(name: str, /, **parameters: Any) -> MergingMethod:
    """The method called ``name`` with these hyper-parameters, checked.

    Args:
        name: a registered method, or one with a correction stacked on it: ``"ties+surgery"``.
        **parameters: the method's hyper-parameters; a correction's go in a mapping under its own name:
            ``create("ties+surgery", density=0.3, surgery={"rank": 8})``.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    method_name, correction_name = split_name(name)
    if correction_name is None:
        method: MergingMethod = METHODS.create(method_name, parameters)
        return method
    corrects = parameters.get(correction_name, {})
    if not isinstance(corrects, Mapping):
        raise UserError(f"{name}: {correction_name} takes a mapping of hyper-parameters, got {corrects!r}")
    own = {key: value for key, value in parameters.items() if key != correction_name}
    from mergerisk.merging.stacked import Stacked

    return Stacked(
        method=METHODS.create(method_name, own),
        correction=CORRECTIONS.create(correction_name, corrects),
    )


def merge_state_dicts(
    name: str,
    base: Tensors | Encoder,
    experts: Sequence[Tensors | Encoder],
    /,
    *,
    seed: int = 0,
    **parameters: Any,
) -> State:
    """Merge plain state dicts with a method that needs no data.

    Args:
        name: a registered method.
        base: the pretrained parameters θ0, or an encoder that has them.
        experts: the experts' parameters, likewise: same names, shapes and dtypes.
        seed: of a method that draws at random.
        **parameters: the method's hyper-parameters.

    Returns:
        New tensors by the base's names; integer tensors are copied from the base.

    Raises:
        UserError: the method needs images, or states that do not fit each other.
    """
    from mergerisk.merging.checks import check_range, check_states
    from mergerisk.merging.states import StateMerging
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.models.on_disk.checkpoints import tensor_specs

    method = create(name, **parameters)
    if not isinstance(method, StateMerging):
        raise UserError(
            f"{name} is no function of state dicts alone; use mergerisk.merging.create({name!r}).merge"
        )
    origin, *states = (given.state() if isinstance(given, Encoder) else given for given in (base, *experts))
    method.check_count(len(states))
    check_range(method, tensor_specs(origin))
    check_states(origin, {str(position): state for position, state in enumerate(states)})
    return method.merge_states(origin, states, seed=seed)
