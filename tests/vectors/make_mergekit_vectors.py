"""Write ``mergekit.safetensors``: states merged by mergekit, an outside implementation.

mergekit is not a dependency. To make the file again, in an environment of its own with Python 3.11, run from the
repository root::

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 mergekit==0.1.5 lazy-loader==0.6
    PYTHONPATH=src python -m tests.vectors.make_mergekit_vectors

How mergekit 0.1.5 maps to this project's definitions (read from its source):

linear       Weight averaging, with the weights divided by their sum. They are given with sum 1.
task_arithmetic    Same, one weight per expert, ``lambda`` 1.
ties         Ranks each tensor alone: ``per_tensor``. It keeps int(density·n) entries, at least one, where this
             project rounds; density 1/4 gives both the same number for every tensor here. With ``normalize`` and
             equal weights it is the paper's mean, without it ``sum``. The weights multiply task vectors before
             the election, which equal weights do not change. A zero sum elects + ; there is none.
breadcrumbs  One row per tensor. Drops int(gamma·n) and keeps int(density·n) of what is left, if that is 0
             nothing, where this project keeps at least one: so the scalar differs. If density + gamma passed
             1, mergekit would drop fewer large entries, this project keep fewer: it is 3/8.
model_stock  Same, without ``filter_wise``.
slerp        Same; the "base" is the first of the two experts.
della, della_linear    mergekit draws by ``torch.bernoulli`` from the global generator; here it is handed the numbers that
             belong to each expert's tensor by name. ``epsilon`` is half of ``window``. It ranks convolutions along
             their second dimension and fails for a single entry: both are left out.
dare_linear  ``rescaled_masked_tensor`` with the L1 norm; the masks are drawn by tensors' names, since
             mergekit's own come from the global generator. What is left is added by task_arithmetic.

The functions get float64; what they give is rounded once, when it is stored.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from mergekit import merge_methods
from mergekit.sparsify import RescaleNorm, rescaled_masked_tensor
from tests.vectors.states import SHAPES, State, Vectors, cast, make_states

from mergerisk.randomness import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 11
"""Of DARE's and DELLA's masks."""


def dropped(base: State, expert: State, position: int, rate: float) -> State:
    """The expert whose task vector has lost entries and kept its L1 norm in every tensor."""
    result = {}
    for name, start in base.items():
        draws = torch.rand(start.shape, generator=generator(SEED, "dare", position, name))
        result[name] = start + rescaled_masked_tensor(expert[name] - start, draws >= rate, RescaleNorm.l1)
    return result


RANKED = [name for name, shape in SHAPES.items() if len(shape) in {1, 2}]
"""Tensors of which DELLA ranks rows in mergekit as it does here."""


def by_rank(merge: Callable[..., State], method: str, states: dict[str, State], **parameters: Any) -> State:
    """What mergekit's DELLA makes of the tensors that it ranks as this project does; the others are the base's."""
    merged = dict(states["base"])
    for name in RANKED:
        draws = iter(
            torch.rand(states["base"][name].shape, generator=generator(SEED, "della", position, name))
            for position in range(len(states) - 1)
        )

        def bernoulli(probabilities: torch.Tensor, draws: Iterator[torch.Tensor] = draws) -> torch.Tensor:
            return (next(draws).reshape(probabilities.shape) >= 1 - probabilities).to(probabilities)

        with patch("torch.bernoulli", bernoulli):
            merged |= merge(
                method, {model: {name: state[name]} for model, state in states.items()}, "base", **parameters
            )
    return merged


def main() -> None:
    """Make and write the vectors."""
    torch.set_num_threads(1)  # sums are then added in one order
    stored_base, stored_experts = make_states()
    base = cast(stored_base, torch.float64)
    experts = {f"expert_{position}": cast(expert, torch.float64) for position, expert in enumerate(stored_experts)}
    models = {"base": base, **experts}
    two = dict(list(experts.items())[:2])
    after_drop = {
        name: dropped(base, expert, position, 0.3) for position, (name, expert) in enumerate(experts.items())
    }

    def each(*values: float) -> dict[str, float]:
        return dict(zip(experts, values, strict=True))

    def merge(method: str, states: dict[str, State], start: str | None, **parameters: Any) -> State:
        return dict(merge_methods.merge_state_dicts(states, method, parameters=parameters, base=start))

    merged = {
        "weight_averaging": merge("linear", experts, None, weight=each(0.4, 0.3, 0.2, 0.1)),
        "task_arithmetic": merge("task_arithmetic", models, "base", weight=each(0.1, 0.2, 0.3, 0.4)),
        "ties_mean": merge("ties", models, "base", weight=1.0, density=0.25),
        "ties_sum": merge("ties", models, "base", weight=0.3, density=0.25, normalize=False),
        "breadcrumbs": merge("breadcrumbs", models, "base", weight=0.4, density=0.25, gamma=0.125),
        "model_stock": merge("model_stock", models, "base"),
        "slerp": merge("slerp", two, "expert_0", t=0.3),
        "dare": merge("task_arithmetic", {"base": base, **after_drop}, "base", weight=0.4),
        "della": by_rank(merge, "della", models, weight=1.0, density=0.6, epsilon=0.2),
        "della_linear": by_rank(merge, "della_linear", models, weight=0.4, density=0.6, epsilon=0.2),
    }
    ours: dict[str, dict[str, Any]] = {
        "weight_averaging": {"method": "weight_averaging", "coefficients": [0.4, 0.3, 0.2, 0.1]},
        "task_arithmetic": {"method": "task_arithmetic", "scaling": [0.1, 0.2, 0.3, 0.4]},
        "ties_mean": {"method": "ties", "variant": "mean", "trim": "per_tensor", "density": 0.25},
        "ties_sum": {"method": "ties", "variant": "sum", "trim": "per_tensor", "density": 0.25},
        "breadcrumbs": {
            "method": "breadcrumbs",
            "granularity": "tensor",
            "density": 0.25,
            "drop_top": 0.125,
            "scaling": 0.4,
        },
        "model_stock": {"method": "model_stock"},
        "slerp": {"method": "slerp", "t": 0.3, "experts": 2},
        "dare": {"method": "dare", "drop_rate": 0.3, "rescale": "l1_norm", "scaling": 0.4, "seed": SEED},
        "della": {
            "method": "della",
            "drop_rate": 0.4,
            "window": 0.4,
            "rescale": "l1_norm",
            "scaling": 1.0,
            "seed": SEED,
        },
        "della_linear": {
            "method": "della",
            "drop_rate": 0.4,
            "window": 0.4,
            "rescale": "l1_norm",
            "elect": False,
            "scaling": 0.4,
            "seed": SEED,
        },
    }
    versions = {"mergekit": version("mergekit"), "torch": torch.__version__}
    file = Path(__file__).with_name("mergekit.safetensors")
    Vectors(stored_base, stored_experts, merged, ours, versions).write(file)


if __name__ == "__main__":
    main()
