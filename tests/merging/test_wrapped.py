"""LiNeS and SVC around other methods, against float64 transcriptions and what they must give in closed form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mergerisk import merging
from mergerisk.errors import UserError
from mergerisk.study.file_schema import parameters_of
from tests.naive import wrapped as naive

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
BLOCKS = 12  # block 1 is none of 10 and 11
SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings.token": (1, 1, 5),
    "embeddings.patch.weight": (4, 3, 2, 2),
    **{f"encoder.layer.{block}.mlp.0.weight": (4, 6) for block in range(BLOCKS)},
    **{f"encoder.layer.{block}.norm1.bias": (4,) for block in range(BLOCKS)},
    "head.weight": (7, 4),
}
DEPTH = {name: int(name.split(".")[2]) for name in SHAPES if name.startswith("encoder")}
INNER: list[dict[str, Any]] = [
    {"method": "task_arithmetic", "scaling": 1.0},
    {"method": "task_arithmetic", "scaling": 0.3},
    {"method": "ties"},
    {"method": "tsv_m"},
    {"method": "dare", "drop_rate": 0.4},
]


def states(count: int, seed: int = 0) -> tuple[State, list[State]]:
    draws = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> State:
        return {n: scale * torch.randn(s, generator=draws, dtype=torch.float64) for n, s in SHAPES.items()}

    base, common = draw(1.0), draw(0.05)
    return base, [{n: base[n] + common[n] + tau for n, tau in draw(0.1).items()} for _ in range(count)]


def merged_by(of: dict[str, Any], base: State, experts: list[State]) -> State:
    return merging.merge_state_dicts(
        of["method"], base, experts, seed=3, **{key: value for key, value in of.items() if key != "method"}
    )


def assert_close(actual: State, wanted: State, rtol: float = 1e-9) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(
            actual[name], value, rtol=rtol, atol=rtol, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("of", INNER, ids=lambda of: of["method"])
@pytest.mark.parametrize("alpha", [None, 0.2])
def test_lines_is_the_transcription(of: dict[str, Any], alpha: float | None) -> None:
    base, experts = states(3)
    given: dict[str, Any] = {"of": of, "alpha": alpha, "beta": 0.7}
    wanted = naive.lines(base, experts, merged_by(of, base, experts), DEPTH, BLOCKS, alpha, 0.7)
    assert_close(merging.merge_state_dicts("lines", base, experts, seed=3, **given), wanted)


def test_lines_begins_with_the_mean_and_ends_with_it_and_beta() -> None:
    """Of task arithmetic α is 1/T, whatever its λ."""
    base, experts = states(4)
    merged = merging.merge_state_dicts("lines", base, experts, beta=0.25 / 0.3)
    mean = merging.merge_state_dicts("weight_averaging", base, experts)
    more = merging.merge_state_dicts("task_arithmetic", base, experts, scaling=0.25 + 0.25)
    for name, depth in {
        "head.weight": 0,
        "encoder.layer.0.norm1.bias": 0,
        "encoder.layer.11.norm1.bias": 11,
    }.items():
        assert_close({name: merged[name]}, {name: (more if depth else mean)[name]})


@pytest.mark.parametrize("of", INNER, ids=lambda of: of["method"])
@pytest.mark.parametrize("alpha", [None, 1.0, 0.6])
def test_svc_is_the_transcription(of: dict[str, Any], alpha: float | None) -> None:
    base, experts = states(3)
    wanted = naive.svc(base, experts, merged_by(of, base, experts), alpha)
    assert_close(merging.merge_state_dicts("svc", base, experts, seed=3, of=of, alpha=alpha), wanted, rtol=1e-7)


def test_svc_undoes_what_was_counted_once_for_each_task() -> None:
    """T copies of one expert, summed, are T times too much: s is T along every direction."""
    base, (expert, *_) = states(1)
    of = {"method": "task_arithmetic", "scaling": 1.0}
    merged = merging.merge_state_dicts("svc", base, [expert] * 3, of=of)
    matrices = [name for name, shape in SHAPES.items() if len(shape) == 2]
    assert_close(merged, {name: expert[name] for name in matrices})
    others = {name: base[name] + 3 * (expert[name] - base[name]) for name in SHAPES if name not in matrices}
    assert_close(merged, others)


def test_svc_leaves_alone_what_no_two_tasks_share() -> None:
    """Experts that answer in rows of their own: s is 1 for the one that does, and 0/0 for the others, which count α."""
    base = {"layer.0.weight": torch.zeros(6, 4, dtype=torch.float64)}
    draws = torch.Generator().manual_seed(0)
    experts = []
    for rows in (slice(0, 3), slice(3, 6)):
        expert = base["layer.0.weight"].clone()
        expert[rows, rows.start // 3 * 2 : rows.start // 3 * 2 + 2] = torch.randn(
            3, 2, generator=draws, dtype=torch.float64
        )
        experts.append({"layer.0.weight": expert})
    of = {"method": "task_arithmetic", "scaling": 1.0}
    merged = merging.merge_state_dicts("svc", base, experts, of=of, alpha=1.0)
    assert_close(merged, {"layer.0.weight": experts[0]["layer.0.weight"] + experts[1]["layer.0.weight"]})


def test_svc_at_alpha_1_raises_no_singular_value() -> None:
    base, experts = states(4, seed=1)
    of = {"method": "task_arithmetic", "scaling": 1.0}
    before, after = merged_by(of, base, experts), merging.merge_state_dicts("svc", base, experts, of=of, alpha=1.0)
    for name in ("head.weight", "encoder.layer.3.mlp.0.weight"):
        spectra = [torch.linalg.svdvals(state[name] - base[name]) for state in (before, after)]
        assert (spectra[1] <= spectra[0] * (1 + 1e-9)).all()
        assert spectra[1][0] < spectra[0][0]


def test_wrappers_wrap_one_another_and_pass_on_what_they_are_given() -> None:
    base, experts = states(2)
    inner = {"method": "lines", "of": {"method": "ties", "scaling": {"layer.0-5": 0.2, "*": 0.4}}}
    lines = merging.merge_state_dicts("lines", base, experts, of=inner["of"])
    assert_close(
        merging.merge_state_dicts("svc", base, experts, of=inner), naive.svc(base, experts, lines, None), rtol=1e-7
    )


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("svc", {"of": "emr"}, "of: emr is no function of the models' tensors alone"),
        ("svc", {"of": "tiez"}, "of: unknown merging method 'tiez'"),
        ("lines", {"of": {"method": "ties", "densiti": 1}}, "densiti: unknown field"),
        ("lines", {"of": 3}, "of: must be a method's name, or a mapping with 'method'"),
        ("svc", {"alpha": 0}, "alpha: input should be greater than 0"),
        (
            "lines",
            {"of": {"method": "ties", "scaling": {"foo": 1, "*": 1}}},
            "blocks are encoder.layer.0 to encoder.l",
        ),
        ("lines", {"of": {"method": "consensus", "agreement": 3}}, "3 masks cannot agree among 2"),
    ],
)
def test_what_cannot_be_wrapped_is_said_in_a_line(name: str, given: dict[str, Any], said: str) -> None:
    base, experts = states(2)
    with pytest.raises(UserError, match=said):
        merging.merge_state_dicts(name, base, experts, **given)


def test_lines_needs_blocks() -> None:
    base, experts = states(2)
    few = [{name: state[name] for name in ("head.weight", "embeddings.token")} for state in (base, *experts)]
    with pytest.raises(UserError, match="lines: no tensor's name holds the number of a block"):
        merging.merge_state_dicts("lines", few[0], few[1:])


def test_keys_have_every_hyper_parameter_of_what_is_wrapped() -> None:
    method = merging.create("svc", of="ties")
    assert json.loads(json.dumps(method.of)) == {  # type: ignore[attr-defined]
        "method": "ties", "variant": "mean", "trim": "global", "density": 0.2, "scaling": None,
    }  # fmt: skip
    for name in ("lines", "svc"):
        default = merging.create(name)
        assert merging.create(name, of=default.of) == default  # type: ignore[attr-defined]
        assert parameters_of(type(default))["of"]["anyOf"]
