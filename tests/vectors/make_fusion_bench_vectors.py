"""Write ``fusion_bench.safetensors``: states merged by FusionBench, an outside implementation.

FusionBench is not a dependency. To make the file again, in an environment of its own with Python 3.11, run from
the repository root::

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 fusion-bench==0.2.33 lazy-loader==0.6
    PYTHONPATH=src python -m tests.vectors.make_fusion_bench_vectors

How fusion-bench 0.2.33 maps to this project's definitions (read from its source):

weight averaging, task arithmetic    Same.
TIES         ``topk_values_mask`` keeps every magnitude from the (d - int(K·d))-th smallest on: int(K·d) + 1 of d
             entries, one more than K says. ``density`` is that exact share. Its "sum" and "mean" are this
             project's variants; λ is applied to the merged task vector.
TSV-M        Same, unless there are more experts than min(m, n): it then keeps no direction, this project one.
Iso-C, Iso-CTS    Same, where no singular value is numerically 0.
EMR          The rescaler divides sums of per-tensor means: ``tensor_mean``. It takes a zero sum for negative;
             there is none. Rescalers are float32.
Model Stock  Averages the angles of all pairs, where this project averages their cosines. Two experts are one
             pair, so only two are merged. Adds 1e-8 to both denominators.
SLERP        Same.
DARE         ``param_random_drop_`` draws from the global generator. That gets the state of the generator which
             this project documents for each expert and tensor, so that the same entries are dropped.
TALL masks   ``generate_task_masks`` compares |θ0 - τt| with λ|Στ - τt| as its caller uses it, and gives the
             paper's masks if 0 is passed in θ0's place, as here. How many masks hold an entry is counted here:
             FusionBench does that with masks from disk.
WUDI         Same, where no task matrix is 0: ``early_stopped``, with ``others: mean``. Its learning rate is 1e-5.
DOGE-TA      Takes tensors called "encoder" and "weight", which are given as the matrices alone; the others stay.
             Keeps int(K·d) + 1 of the d entries of a task vector, as ``topk_values_mask`` does. Directions count as
             shared whatever their singular value: here all of them are above 1. Steps and learning rate are its own.
SVC          ``…_calibration_accelerated`` is the same. The slower form beside it takes answers along each task's
             own singular vectors, not the merge's.
OPCM         ``OPCMForCLIP`` is for CLIP; its two functions that merge a tensor are called here in its loop's
             place, matrices by the one for the weights of linear layers.
PCB, breadcrumbs, DELLA    Not offered.

The functions get float64; what they give is rounded once, when it is stored.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fusion_bench.method.dare.utils import param_random_drop_
from fusion_bench.method.doge_ta.doge_ta import DOGE_TA_Algorithm
from fusion_bench.method.emr_merging.utils import EMRModulatedModel, EMRTaskModulator, emr_merge
from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
from fusion_bench.method.model_stock.model_stock import compute_angle, compute_ratio, merge_weights
from fusion_bench.method.simple_average import simple_average
from fusion_bench.method.singular_value_calibration.utils import (
    subspace_consistency_spectral_calibration_accelerated,
)
from fusion_bench.method.slerp.slerp import slerp_on_state_dicts
from fusion_bench.method.tall_mask.task_arithmetic import generate_task_masks
from fusion_bench.method.task_arithmetic.task_arithmetic import TaskArithmeticAlgorithm
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
from fusion_bench.method.ties_merging.ties_merging_utils import (
    state_dict_to_vector,
    ties_merging,
    vector_to_state_dict,
)
from fusion_bench.method.wudi.wudi import wudi_merging
from fusion_bench.models.parameter_dict import ParameterDictModel
from fusion_bench.utils.state_dict_arithmetic import (
    state_dict_add,
    state_dict_mul,
    state_dict_sub,
    state_dict_sum,
)
from tests.vectors.states import EXPERTS, State, Vectors, cast, make_states
from torch import nn
from transformers.models.clip import modeling_clip

from mergerisk.randomness import generator

TRIM = 0.2
SEED = 11
"""Of DARE's masks."""


def as_module(state: State) -> nn.Module:
    """The module that holds these tensors, for functions that ask for one."""
    return ParameterDictModel({name: nn.Parameter(tensor.clone()) for name, tensor in state.items()})


def plus(base: State, vector: State, scaling: float) -> State:
    """θ0 + λ τ, by FusionBench's own arithmetic of states."""
    return dict(state_dict_add(base, state_dict_mul(vector, scaling)))


def trimmed(base: State, vectors: list[State], merge_func: str, scaling: float) -> State:
    """TIES over all parameters flattened together."""
    flat = torch.vstack([state_dict_to_vector(vector) for vector in vectors])
    merged = ties_merging(flat, reset_thresh=TRIM, merge_func=merge_func)
    return plus(base, vector_to_state_dict(merged, base), scaling)


def per_task(base: State, vectors: list[State]) -> list[State]:
    """The states that EMR's model takes on for one task after another."""
    unified, masks, rescalers = emr_merge(vectors)
    states = []
    for task in range(EXPERTS):
        model = EMRModulatedModel(as_module(base), {}, unified)
        own = {name: mask[task] for name, mask in masks.items()}
        model.add_modulator("task", EMRTaskModulator(own, float(rescalers[task])))
        model.set_task("task")
        states.append({name: tensor.detach() for name, tensor in model.backbone.state_dict().items()})
    return states


def stock_of_two(base: State, one: State, two: State) -> State:
    """Model Stock of two experts."""
    return merge_weights(one, two, base, compute_ratio(compute_angle(one, two, base), k=2))


def dropped(vector: State, expert: int, rate: float) -> State:
    """A task vector after DARE's drop and rescale, in float32 for the same draws."""
    result = {}
    for name, tensor in vector.items():
        parameter = nn.Parameter(tensor.float())
        torch.default_generator.set_state(generator(SEED, "dare", expert, name).get_state())
        param_random_drop_(parameter, rate, rescale=True)
        result[name] = parameter.detach().double()
    return result


def agreed(vectors: list[State], threshold: float, agreement: int) -> State:
    """The summed task vector where enough TALL masks hold."""
    total = state_dict_sum(vectors)
    nothing = state_dict_mul(total, 0.0)
    masks = [generate_task_masks(total, vector, nothing, threshold) for vector in vectors]
    return {name: tensor * (sum(mask[name] for mask in masks) >= agreement) for name, tensor in total.items()}


def projected(base: State, experts: list[State]) -> tuple[State, float]:
    """DOGE-TA of the matrices, and the exact share of entries that it keeps."""
    names = {name: f"encoder.{name}" for name, tensor in base.items() if tensor.ndim == 2}
    states = [{new: state[name] for name, new in names.items()} for state in (base, *experts)]
    pool = {str(position): as_module(state) for position, state in enumerate(states[1:])}
    pool["_pretrained_"] = as_module(states[0])
    merged = DOGE_TA_Algorithm(subspace=3, K=30, lamda=0.2).run(pool).state_dict()
    count = sum(tensor.numel() for tensor in states[0].values())
    return base | {name: merged[new] for name, new in names.items()}, (int(0.3 * count) + 1) / count


def calibrated(base: State, experts: list[State], merged: State, alpha: float) -> State:
    """SVC of every matrix of a merge."""

    def one(name: str) -> torch.Tensor:
        tuned = [expert[name] for expert in experts]
        return subspace_consistency_spectral_calibration_accelerated(base[name], tuned, merged[name], alpha, "cpu")

    return {name: one(name) if tensor.ndim == 2 else tensor for name, tensor in merged.items()}


def arrived(base: State, experts: list[State], alpha: float) -> State:
    """OPCM of experts in their order."""
    # What FusionBench imports beside it transformers 5 does not have, and nothing here uses.
    modeling_clip.CLIPVisionTransformer = modeling_clip.CLIPVisionModel  # type: ignore[attr-defined]
    opcm = import_module("fusion_bench.method.opcm.opcm").OPCMForCLIP

    def length(state: State) -> float:
        return float(torch.linalg.vector_norm(state_dict_to_vector(state_dict_sub(state, base))))

    def one(name: str, before: State, expert: State) -> torch.Tensor:
        given = (loop, before[name], base[name], expert[name], name)
        if base[name].ndim == 2:
            return opcm.merge_linear_weights(*given, alpha)
        return opcm.merge_other_parameters(*given)

    merged, lengths = experts[0], [length(experts[0])]
    loop = SimpleNamespace(previous_lambda_t=1, lambda_t=1)
    for expert in experts[1:]:
        lengths.append(length(expert))
        mean = sum(lengths) / len(lengths)
        grown = {name: one(name, merged, expert) for name in base}
        loop.previous_lambda_t = length(grown) / mean
        merged = plus(base, dict(state_dict_sub(grown, base)), mean / length(grown))
    return merged


def main() -> None:
    """Make and write the vectors."""
    torch.set_num_threads(1)  # sums are then added in one order
    stored_base, stored_experts = make_states()
    base, experts = cast(stored_base, torch.float64), [cast(expert, torch.float64) for expert in stored_experts]
    vectors = [dict(state_dict_sub(expert, base)) for expert in experts]
    count = sum(tensor.numel() for tensor in base.values())
    sparse = [dropped(vector, position, 0.3) for position, vector in enumerate(vectors)]
    kept = (int(TRIM * count) + 1) / count
    doge, masked = projected(base, experts)

    pool = {str(position): as_module(expert) for position, expert in enumerate(experts)}
    pool["_pretrained_"] = as_module(base)
    merged: dict[str, State] = {
        "weight_averaging": simple_average(experts),
        "task_arithmetic": TaskArithmeticAlgorithm(scaling_factor=0.3).run(pool).state_dict(),
        "ties_sum": trimmed(base, vectors, "sum", 0.3),
        "ties_mean": trimmed(base, vectors, "mean", 1.0),
        "tsv_m": plus(base, compute_and_sum_svd_mem_reduction(vectors, accelerator="cpu"), 0.9),
        "wudi": plus(base, wudi_merging(vectors, accelerator="cpu", iter_num=300), 1.0),
        "doge_ta": doge,
        "iso_c": plus(base, iso_c(vectors, accelerator="cpu"), 1.3),
        "iso_cts": plus(base, iso_cts(vectors, 0.8, accelerator="cpu"), 1.5),
        "iso_cts_half": plus(base, iso_cts(vectors, 0.5, accelerator="cpu"), 1.0),
        "svc": calibrated(base, experts, plus(base, state_dict_sum(vectors), 0.3), 1 / EXPERTS),
        "opcm": arrived(base, experts, 0.5),
        "consensus": plus(base, agreed(vectors, 0.40625, 2), 0.3),
        "dare": plus(base, state_dict_sum(sparse), 0.4),
        "model_stock": stock_of_two(base, *experts[:2]),
        "slerp": slerp_on_state_dicts(0.3, *experts[:2]),
    }
    ours: dict[str, dict[str, Any]] = {
        "weight_averaging": {"method": "weight_averaging"},
        "task_arithmetic": {"method": "task_arithmetic", "scaling": 0.3},
        "ties_sum": {"method": "ties", "variant": "sum", "trim": "global", "density": kept, "scaling": 0.3},
        "ties_mean": {"method": "ties", "variant": "mean", "trim": "global", "density": kept, "scaling": 1.0},
        "tsv_m": {"method": "tsv_m", "scaling": 0.9},
        "wudi": {"method": "wudi", "steps": 300, "learning_rate": 1e-5, "others": "mean"},
        "doge_ta": {"method": "doge_ta", "scaling": 0.2, "density": masked, "subspace": 3},
        "iso_c": {"method": "iso_c", "scaling": 1.3},
        "iso_cts": {"method": "iso_cts", "common": 0.8, "scaling": 1.5},
        "iso_cts_half": {"method": "iso_cts", "common": 0.5, "scaling": 1.0},
        "svc": {"method": "svc", "of": {"method": "task_arithmetic", "scaling": 0.3}},
        "opcm": {"method": "opcm", "alpha": 0.5},
        "consensus": {"method": "consensus", "threshold": 0.40625, "agreement": 2, "scaling": 0.3},
        "dare": {"method": "dare", "drop_rate": 0.3, "rescale": "expected", "scaling": 0.4, "seed": SEED},
        "model_stock": {"method": "model_stock", "experts": 2},
        "slerp": {"method": "slerp", "t": 0.3, "experts": 2},
    }
    merged |= {f"emr_{task}": state for task, state in enumerate(per_task(base, vectors))}
    versions = {"fusion-bench": version("fusion-bench"), "torch": torch.__version__}
    file = Path(__file__).with_name("fusion_bench.safetensors")
    Vectors(stored_base, stored_experts, merged, ours, versions).write(file)


if __name__ == "__main__":
    main()
