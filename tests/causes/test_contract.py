"""What holds of every diagnostic: columns, missing values, arguments, models left alone, work done once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mergerisk as mr
from mergerisk import causes
from mergerisk.attacks import Pool
from mergerisk.causes import CAUSES, Batch, Column, ImageCause, ProbingCause
from mergerisk.causes.result import NOT_FINITE, joined, stated
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Encoder, Head
from mergerisk.transfer import BlackBox
from mergerisk.validation import hyperparameters
from tests.causes.models import PIXELS, Linear, classifier, draws, encoder, pictures, small

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mergerisk.causes import Measured, Seen, Values

NAMES = [entry.name for entry in CAUSES.entries() if entry.target.startswith("mergerisk.")]
every_cause = pytest.mark.parametrize("name", NAMES)
IMAGES, LABELS = pictures(8), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
BASE, S, T = small(1), small(2, base=1), small(3, base=1)
MERGE: dict[str, Any] = {"base": BASE, "experts": {"a": S, "b": T}, "coefficients": {"a": 0.5, "b": 0.5}}


def test_all_that_the_issue_asks_for_is_here() -> None:
    pixel = "gradient_alignment gradient_size smoothness boundary_distance agreement diversity"
    feature = "representation_bias cka feature_shift linearity"
    weight = "weight_distance loss_barrier subspace_alignment interference confidence"
    assert [*pixel.split(), *feature.split(), *weight.split()] == NAMES
    assert mr.causes.CAUSES is CAUSES


def test_names_are_those_of_the_registry_and_columns_are_shared_by_none() -> None:
    kinds = [CAUSES.load(name) for name in NAMES]
    assert [kind.name for kind in kinds] == NAMES
    columns = [column.name for kind in kinds for column in kind.columns]
    assert len(columns) == len(set(columns))


@every_cause
def test_columns_are_the_declared_ones_and_in_their_range(name: str) -> None:
    cause = causes.create(name)
    found = cause(S, T, IMAGES, LABELS, **MERGE)
    assert found.cause == name
    assert found.per == cause.per
    declared = {column.name: column for column in cause.columns}
    plain = {re.sub(r"_block_\d+$", "", column) for column in found}
    assert plain == declared.keys()
    for column, values in found.items():
        stem = re.sub(r"_block_\d+$", "", column)
        kind: Column = declared[stem]
        assert stem == column or kind.per_block
        assert len(values) == len(found.rows)
        assert len(values.present) + sum(values.counts.values()) == len(values)
        assert not len(values.present) or kind.low is None or values.present.min() >= kind.low
        assert not len(values.present) or kind.high is None or values.present.max() <= kind.high
    if cause.per == "image":
        assert found.rows == tuple(range(8))
    frame = found.frame()
    assert list(frame.columns) == [label for column in found for label in (column, f"{column}_missing")]
    for column in found:
        assert (frame[column].isna() == (frame[f"{column}_missing"] != "")).all()


# --- missing values --------------------------------------------------------------------------------------


def test_missing_values_have_one_reason_and_enter_no_mean() -> None:
    values = stated([1.0, 2.0, np.nan, np.inf, 5.0], {"a": [1, 0, 0, 0, 0], "b": [1, 1, 1, 0, 0]})
    assert values.counts == {"a": 1, "b": 2, NOT_FINITE: 1}
    assert values.mean == 5.0
    assert values.reasons == ["a", "b", "b", NOT_FINITE, ""]
    twice = joined([values, stated([3.0])])
    assert twice.mean == 4.0
    assert twice.counts == values.counts
    assert stated([], {}).mean is None


# --- arguments -------------------------------------------------------------------------------------------


class Oracle(BlackBox):
    """Only labels."""

    class_names = ("a", "b", "c")
    batch_size = 4

    @property
    def name(self) -> str:
        return "oracle"

    def _answers(self, portions: Any) -> Any:  # noqa: ARG002
        raise AssertionError("asked")


class Detached(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach().flatten(1)[:, :3]


def asked(name: str, **changes: Any) -> Callable[[], Measured]:
    arguments = {"surrogate": S, "target": T, "images": IMAGES, "labels": LABELS, **MERGE} | changes
    parameters = arguments.pop("parameters", {})
    return lambda: causes.create(name, **parameters)(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (asked("gradient_alignmnt"), "unknown cause 'gradient_alignmnt' (did you mean 'gradient_alignment'?)"),
        (asked("smoothness", parameters={"products": 0}), "cause 'smoothness': products: input should be greater"),
        (asked("agreement", parameters={"attack": "fgms"}), "unknown attack 'fgms' (did you mean 'fgsm'?)"),
        (asked("agreement", parameters={"attack": "fgsm", "steps": 3}), "attack 'fgsm': steps: unknown field"),
        (
            asked("gradient_alignment", labels=None),
            "gradient_alignment needs labels, which the call does not give",
        ),
        (asked("weight_distance", surrogate=None, base=None), "weight_distance needs surrogate and base"),
        (asked("interference", experts=None, coefficients=None), "interference needs experts"),
        (asked("interference", experts={}, coefficients={}), "interference: there are no experts"),
        (asked("linearity", coefficients=None), "linearity needs coefficients"),
        (asked("cka", images=IMAGES[:0], labels=LABELS[:0]), "cka: there are no images"),
        (asked("cka", images=255 * IMAGES), "pixels must lie in [0, 1]"),
        (asked("gradient_size", labels=LABELS + 2), "labels must lie in 0 … 2, as the surrogate has 3 classes"),
        (asked("gradient_size", labels=LABELS[:3]), "labels must be integers, one per image"),
        (asked("feature_shift", epsilon=8), "epsilon must lie in [0, 1], got 8"),
        (asked("confidence", batch_size=0), "batch_size must be 1 or more, got 0"),
        (asked("confidence", indices=[1]), "indices must name each of the 8 images, got 1"),
        (asked("gradient_size", target=Oracle()), "gradient_size: the target is a Oracle, which has no gradients"),
        (asked("confidence", target=Oracle()), "the target is a Oracle, which has no logits to read"),
        (asked("weight_distance", target=Oracle()), "the target is a Oracle, whose weights cannot be read"),
        (
            asked("representation_bias", target=Detached()),
            "the target is a Detached, whose features cannot be told",
        ),
        (asked("loss_barrier", target=Detached()), "the target is a Detached, whose features cannot be told"),
        (asked("gradient_size", target=Detached()), "the target's answer carries no gradient back to the pixels"),
        (asked("gradient_size", surrogate=S.encoder), "the surrogate is an encoder, which has no logits"),
        (
            asked("cka", target=classifier([draws(1, 6, PIXELS)] * 1, draws(2, 3, 6))),
            "cka: the surrogate has 3 blocks, the target 1; blocks=False compares the final features alone",
        ),
        (
            asked("representation_bias", target=classifier([draws(1, 5, PIXELS)], draws(2, 3, 5))),
            "representation_bias: the surrogate has 6 features, the target 5",
        ),
        (
            asked("agreement", target=Classifier(T.encoder, Head(draws(1, 4, 6), draws(1, 4)))),
            "agreement: the surrogate has 3 classes, the target 4",
        ),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(call: Callable[[], Measured], message: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_why_a_pair_has_nothing_to_say_is_known_without_running_a_model() -> None:
    for name in NAMES:
        cause = causes.create(name)
        assert cause.refuses(S, T) is None, name
        assert str(cause.refuses(S, Oracle())).startswith("the target is a Oracle, w"), name
        if "surrogate" in cause.needs:
            assert str(cause.refuses(Oracle(), T)).startswith("the surrogate is a Oracle, w"), name
    other = classifier([draws(1, 5, PIXELS)], draws(2, 3, 5))
    assert "the surrogate has 3 blocks, the target 1" in str(causes.create("cka").refuses(S, other))
    assert "the surrogate" in str(causes.create("loss_barrier").refuses(other, T))
    state = dict(T.encoder.state())
    assert causes.create("interference").refuses(None, state) is None


def test_models_without_blocks_say_how_to_go_on() -> None:
    bare = Encoder(nn.Flatten(), width=PIXELS, image_size=2, mean=(0.0,) * 3, std=(1.0,) * 3).double()
    for name in ("cka", "representation_bias"):
        with pytest.raises(UserError, match=r"the surrogate \(Flatten\) has no list of blocks; blocks=False"):
            causes.create(name)(bare, bare, IMAGES)
        assert len(causes.create(name, blocks=False)(bare, bare, IMAGES).columns)
    surrogate = Classifier(bare, Head(draws(1, 3, PIXELS), draws(2, 3)))
    with pytest.raises(UserError, match="diversity: the surrogate has no list of blocks; layers=0"):
        causes.create("diversity")(surrogate, T, IMAGES, LABELS)


@pytest.mark.parametrize("name", ["gradient_alignment", "agreement", "cka", "smoothness"])
def test_the_question_is_refused_before_anything_is_computed(name: str) -> None:
    """The surrogate, which comes first, is run on one image at most."""
    shown: list[int] = []
    watched = small(2)
    watched.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    with pytest.raises(UserError):
        causes.create(name)(watched, Oracle(), IMAGES, LABELS)
    assert sum(shown) <= 2


# --- models ----------------------------------------------------------------------------------------------


@every_cause
def test_models_and_images_are_left_as_they_were(name: str) -> None:
    models = [small(seed).train() for seed in (1, 2, 3)]
    for model in models:
        model.requires_grad_(True)
    before = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
    images = IMAGES.clone()
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        causes.create(name)(
            models[1],
            models[2],
            images,
            LABELS,
            base=models[0],
            experts={"a": models[1]},
            coefficients={"a": 1.0},
        )
    assert torch.equal(images, IMAGES)
    assert torch.equal(state, torch.random.get_rng_state())
    for model, then in zip(models, before, strict=True):
        assert all(torch.equal(t, then[n]) for n, t in model.state_dict().items())
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())


def counted(model: nn.Module) -> list[int]:
    """Images shown to the model, forward and, as second entry, those whose gradient came back to the pixels."""
    counts = [0, 0]

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        counts[0] += len(given[0])
        if given[0].requires_grad:
            given[0].register_hook(lambda gradient: counts.__setitem__(1, counts[1] + len(gradient)))

    model.register_forward_pre_hook(see)
    return counts


def test_one_gradient_per_image_and_model_serves_every_pair() -> None:
    """One surrogate, sixteen targets, alignment and size: seventeen gradients an image, and those of one image more,
    which tells what fits into memory."""
    targets = {f"merge {seed}": small(seed) for seed in range(3, 19)}
    models = [surrogate := small(2), *targets.values()]
    counts = [counted(model) for model in models]
    asked = [causes.create("gradient_alignment"), causes.create("gradient_size")]
    found = causes.measure(asked, {"expert": surrogate}, targets, IMAGES, LABELS, batch_size=3)
    assert sum(gradients for _, gradients in counts) == 17 * (len(IMAGES) + 1)
    assert len(found) == 2 * 16
    for (name, _, target), measured in found.items():
        alone = causes.create(name)(surrogate, targets[target], IMAGES, LABELS)
        for column, values in alone.items():
            np.testing.assert_allclose(measured[column].values, values.values, rtol=1e-9)


def forwards_alone(cause: ProbingCause) -> int:
    """Images that a target is shown for its own probes."""
    shown = counted(model := small(3))
    images = torch.zeros_like(IMAGES)
    given = Batch(images, LABELS, tuple(range(8)), 0.1, "linf", 0, Pool(images, LABELS))
    for probe in cause.of_target():
        probe.measure(model.requires_grad_(False), given)
    return shown[0]


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(CAUSES.load(n), ProbingCause)])
def test_declared_costs_are_those_met(name: str) -> None:
    """Gradients that come back to the pixels, of whole images; of those that are differentiated twice, the first."""
    cause = causes.create(name)
    assert isinstance(cause, ProbingCause)
    s, t = counted(surrogate := small(2)), counted(target := small(3))
    cause(surrogate, target, IMAGES, LABELS)
    probes = cause.of_surrogate(), cause.of_target()
    shown = len(IMAGES) + 1  # one more tells what fits into memory
    if name != "smoothness":
        for counts, wanted in zip((s, t), probes, strict=True):
            assert counts[1] <= shown * sum(probe.gradients_per_image for probe in wanted)
    per_image = forwards_alone(cause) / len(IMAGES) + cause.forwards_per_pair
    assert t[0] <= shown * per_image + 2, "one image is looked at first"
    assert sum(probe.gradients_per_image for probe in probes[0]) <= 42, "twenty products, and two gradients"


@pytest.mark.parametrize("count", [8, 64])
def test_no_more_images_at_once_than_asked_for(count: int) -> None:
    images = pictures(count)
    labels = torch.arange(count) % 3
    most: list[int] = []
    model = small(2)
    model.register_forward_pre_hook(lambda _, given: most.append(len(given[0])))
    for name in NAMES:
        causes.create(name)(model, model, images, labels, batch_size=5, **MERGE)
    assert max(most) == 5


# --- plugins ---------------------------------------------------------------------------------------------


def test_a_diagnostic_of_ones_own() -> None:
    @CAUSES.register("brightness", summary="mean logit of the target")
    @hyperparameters
    class MeanLogit(ImageCause):
        name = "mean_logit"
        needs = frozenset({"surrogate", "images"})
        columns = (Column("mean_logit", "logit", None, None, "nothing"),)
        scale: float = 1.0

        def of_target(self) -> tuple[Any, ...]:
            return (causes.Logits(),)

        def compare(self, seen: Seen) -> Mapping[str, Values]:
            return {"mean_logit": stated(self.scale * seen.target[causes.Logits()]["logits"].mean(dim=1))}

    try:
        model = Linear(draws(1, 3, PIXELS))
        found = causes.create("brightness", scale=2.0)(model, model, IMAGES)
        np.testing.assert_allclose(found["mean_logit"].values, 2 * model(IMAGES).mean(dim=1).numpy())
        with pytest.raises(UserError, match="cause 'brightness': scales: unknown field"):
            causes.create("brightness", scales=2.0)
    finally:
        CAUSES.unregister("brightness")


def test_encoders_do_where_no_logits_are_read() -> None:
    one, other = (encoder([draws(seed, 6, PIXELS)]) for seed in (1, 2))
    assert causes.create("cka")(one, other, IMAGES)["cka"].mean is not None
    assert causes.create("representation_bias")(one, other, IMAGES)["representation_bias"].mean
