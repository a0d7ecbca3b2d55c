"""Study files: what they mean, and one clear line for every mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from mergerisk.errors import UserError
from mergerisk.study import Study, load_study, make_plan, parse_study
from mergerisk.study.resolving import resolve
from tests.tiny import MINIMAL, STUDY, arrays, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_are_filled_in() -> None:
    study = parse_study(MINIMAL)
    assert study.schema_version == 1
    assert [spec.label for spec in study.surrogates] == ["expert", "pretrained"]
    assert study.calibration == "held_out"
    assert study.merging[0].parameters == {
        "variant": "mean",
        "trim": "global",
        "density": 0.2,
        "scaling": None,
    }
    assert study.budgets.epsilon == (2 / 255,)
    assert study.experts.fine_tune["epochs"] > 0


def test_what_a_method_got_later_is_said_only_where_it_is_used() -> None:
    """A merge that was made before is found again under its key."""
    before = {"granularity", "initial", "steps", "batches", "batch_size", "learning_rate", "clamp"}
    later = {"robust", "robust_epsilon", "robust_steps", "robust_images"}
    for given, names in ({}, before), ({"robust": 0}, before), ({"robust": 0.5}, before | later):
        study = parse_study(MINIMAL | {"merging": [{"method": "adamerging", **given}]})
        assert {*study.merging[0].parameters} == names


def test_budgets_are_numbers_or_fractions_and_sorted() -> None:
    study = parse_study(MINIMAL | {"budgets": {"epsilon": ["8/255", 0.5, " 1 / 255 "]}})
    assert study.budgets.epsilon == (1 / 255, 8 / 255, 0.5)


def test_steps_reach_the_attacks_that_take_steps_and_do_not_say_themselves() -> None:
    attacks = ["fgsm", "i_fgsm", {"attack": "mi_fgsm", "steps": 3, "label": "mi-3"}]
    study = parse_study(MINIMAL | {"attacks": attacks, "budgets": {"epsilon": [0.1], "steps": 7}})
    assert [spec.parameters.get("steps") for spec in study.attacks] == [None, 7, 3]
    assert [spec.label for spec in study.attacks] == ["fgsm", "i_fgsm", "mi-3"]


def test_a_study_survives_being_written_and_read(tmp_path: Path, tiny_vit: Path) -> None:
    study = load_study(write_tiny_study(tmp_path, tiny_vit))
    (tmp_path / "again.yaml").write_text(study.to_yaml())
    assert load_study(tmp_path / "again.yaml") == study
    assert load_study(tmp_path / "again.yaml", resolve=False) == study


def test_the_shipped_study_is_the_papers_336_settings() -> None:
    study = load_study("starter")
    assert study.settings == 336
    assert (len(study.merging), len(study.tasks), len(study.attacks)) == (8, 7, 6)
    assert study.images_per_task >= 100
    assert max(study.budgets.epsilon) == 8 / 255


SVRE = {"ensemble": ["expert", "pretrained"], "algorithm": "svre"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": None}, "backbone: must be a text"),
        ({"tasks": []}, "tasks: "),
        ({"tasks": ["digit"]}, "tasks[0]: unknown task 'digit' (did you mean 'digits'?)"),
        ({"tasks": ["digits", "digits"]}, "tasks: task 'digits' is given twice"),
        ({"tasks": ["nowhere.npz"]}, "no such file"),
        ({"merging": ["tie"]}, "merging[0]: unknown merging method 'tie' (did you mean 'ties'?)"),
        ({"merging": ["ties", "ties"]}, "merging label 'ties' is given twice; give one a label of its own"),
        ({"merging": [{"density": 1}]}, "merging[0]: must be a name, or a mapping with 'method'"),
        ({"merging": [{"method": "ties", "density": 2}]}, "merging[0]: merging method 'ties': density: "),
        ({"merging": [{"method": "ties", "label": "expert"}]}, "label 'expert' is taken"),
        ({"attacks": ["mi_fgms"]}, "attacks[0]: unknown attack 'mi_fgms' (did you mean 'mi_fgsm'?)"),
        ({"attacks": [{"attack": "i_fgsm", "steps": -1}]}, "attacks[0]: attack 'i_fgsm': steps: "),
        ({"surrogates": ["exprt"]}, "surrogates[0]: unknown surrogate 'exprt' (did you mean 'expert'?)"),
        ({"surrogates": ["merged/tie"]}, "surrogates: merged/tie: no merged 'tie' (did you mean 'ties'?)"),
        ({"surrogates": ["expert/letters"]}, "surrogates: expert/letters: no expert 'letters'"),
        ({"surrogates": ["ingredient"]}, "ingredient: say which: ingredient/NAME"),
        ({"surrogates": ["pretrained/digits"]}, "'pretrained/digits': must be 'pretrained'"),
        ({"surrogates": ["other_expert"]}, "surrogates: other_expert: there is no second ingredient"),
        ({"surrogates": ["other_architecture"]}, "surrogates: other_architecture: say which"),
        ({"surrogates": [{"ensemble": ["expert", "merged/ties"]}]}, "merged cannot be part of an ensemble"),
        ({"surrogates": [SVRE | {"ensemble": ["expert"]}]}, "algorithm: is for several models"),
        ({"surrogates": [SVRE | {"algorithm": "svr"}]}, "unknown ensemble algorithm 'svr' (did you mean 'svre'?)"),
        ({"surrogates": [SVRE | {"algorithm": {"algorithm": "svre", "beta": 1}}]}, "ensemble-svre: ensemble algorithm 'svre': "),
        ({"surrogates": [SVRE], "attacks": ["apgd_ce"]}, "svre under apgd_ce: APGD takes gradients in a way of its own"),
        ({"experts": {"from": "files"}}, "surrogates: expert: task 'digits' has none"),
        ({"experts": {"from": "hub"}}, "experts: from: hub: there are experts of openai/clip-vit-base-patch32"),
        ({"experts": {"from": "disk"}}, "experts.from: input should be 'fine_tune', 'hub' or 'files', got 'disk'"),
        ({"ingredients": {"digits": "a"}}, "ingredients: 'digits' is taken"),
        ({"ingredients": {"mine": "a"}, "merging": ["adamerging"]}, "adamerging reads images of every ingredient"),
        ({"outsider": {"seed": 1}}, "outsider: neither among the surrogates nor offered to be merged"),
        ({"outsider": {"offered": True}}, "outsider: offered to every merge: give the outsider's task or file"),
        ({"outsider": {"minority": 0.6}, "surrogates": ["outsider"]}, "outsider.minority: input should be less than or equal to 0.5"),
        ({"averaged": {}}, "averaged: no surrogate is; add it to surrogates"),
        ({"averaged": {"collect": {"beta": 1}}, "surrogates": ["averaged"]}, "averaged.collect: beta: unknown field"),
        ({"other_architecture": {"backbone": "x"}}, "other_architecture: no surrogate is; add it to surrogates"),
        ({"heads": {"from": "zero_shot", "regularization": -1}}, "heads.regularization: input should be greater"),
        ({"heads": {"templates": {"digits": ["a {}"]}}}, "heads: templates belongs to heads from zero_shot"),
        ({"heads": {"from": "zero_shot", "templates": {"digits": ["a"]}}}, "'a' must hold {} once, for the class"),
        ({"heads": {"from": "zero_shot", "templates": {"x": ["a {}"]}}}, "heads.templates: unknown task 'x'"),
        ({"merging": []}, "merging, targets: name a merging method, or a model to attack"),
        ({"targets": [{"label": "x"}]}, "give encoder, a model's folder or file, or else http or callable"),
        ({"budgets": {"epsilon": [0]}}, "budgets.epsilon[0]: must be above 0, got 0"),
        ({"budgets": {"epsilon": [2]}}, "budgets: epsilon: an L∞ budget is at most 1, as pixels are; got 2"),
        ({"budgets": {"epsilon": ["8:255"]}}, "budgets.epsilon[0]: must be a number or a fraction such as 8/255"),
        ({"budgets": {"epsilon": [0.1, 0.1]}}, "budgets.epsilon: a number is given twice"),
        ({"budgets": {"epsilon": [float("nan")]}}, "budgets.epsilon[0]: "),
        ({"budgets": {}}, "budgets.epsilon: required, but not given"),
        ({"images_per_task": -5}, "images_per_task: input should be greater than 0, got -5"),
        ({"seeds": [2**32]}, "seeds[0]: input should be less than 4294967296, got 4294967296"),
        ({"tasks": 3}, "tasks: must be a list, got 3"),
        ({"tasks": []}, "tasks: must not be empty"),
        ({"tasks": [""]}, "tasks[0].task: must not be empty"),
        ({"tasks": [None]}, "tasks[0]: must be a name or path, or a mapping with 'task' and options"),
        ({"surrogates": [3]}, "surrogates[0]: must be a name, or a mapping with 'ensemble'"),
        ({"experts": {"files": {"strokes": ""}}}, "experts.files.strokes: must not be empty"),
        ({"heads": {"regularization": float("inf")}}, "heads.regularization: must be a finite number, got inf"),
        (
            {"heads": {"from": "zero_shot", "class_names": {"digits": []}}},
            "heads.class_names.digits: must not be empty",
        ),
        (
            {"outsider": {"task": "letters", "file": "org/name"}, "surrogates": ["outsider"]},
            "outsider: give the outsider's task, or its file, not both",
        ),
        ({"seeds": [-1]}, "seeds[0]: input should be greater than or equal to 0, got -1"),
        ({"seeds": []}, "seeds: "),
        ({"calibration": "train"}, "calibration: input should be 'held_out' or 'test', got 'train'"),
        ({"schema_version": 2}, "schema_version: input should be 1, got 2"),
        ({"attack": ["fgsm"]}, "attack: unknown field (did you mean 'attacks'?)"),
        ({"experts": {"fine_tune": {"epoch": 3}}}, "experts.fine_tune: epoch: unknown field"),
        ({"experts": {"files": {"digit": "x.safetensors"}}}, "experts.files: unknown task 'digit' (did you mean 'digits'?)"),
        ({"heads": {"regularization": 0}}, "heads.regularization: input should be greater than 0, got 0"),
    ],
)  # fmt: skip
def test_every_mistake_names_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_study(MINIMAL | changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [digits", "line 1: not valid YAML"),
        ("- a\n- b", "a study is a mapping of fields, got list"),
        ("", "nothing is in it; a study is a mapping of fields"),
    ],
)
def test_files_that_are_no_study(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read|not valid YAML"):
        load_study(path)


def test_unknown_studies() -> None:
    with pytest.raises(UserError, match=r"unknown study 'stater' \(did you mean 'starter'\?\)"):
        load_study("stater")
    with pytest.raises(UserError, match="no such file"):
        load_study("nowhere/study.yaml")


def test_paths_are_relative_to_the_study_file(tmp_path: Path, tiny_vit: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    np.savez(folder / "mine.npz", **arrays("stripes"))
    content = STUDY | {"tasks": ["mine.npz"], "backbone": str(tiny_vit)}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    assert load_study(folder / "study.yaml").tasks[0].task == str(folder / "mine.npz")


def test_a_study_can_be_built_in_python() -> None:
    study = resolve(Study(**MINIMAL))
    assert study == parse_study(MINIMAL)


def test_a_shipped_study_that_reads_files_says_how_to_bring_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data DIR"):
        load_study("real-methods")
    with pytest.raises(UserError, match="no such folder"):
        load_study("real-methods", data=tmp_path / "missing")


def test_data_is_where_relative_paths_start(tiny_study: Path, tmp_path: Path) -> None:
    moved = tmp_path / "study.yaml"
    moved.write_bytes(tiny_study.read_bytes())
    with pytest.raises(UserError, match=r"stripes\.npz"):
        load_study(moved)
    assert load_study(moved, data=tiny_study.parent).tasks == load_study(tiny_study).tasks


def test_the_image_size_decides_every_key_of_a_model(tiny_study: Path) -> None:
    content = yaml.safe_load(tiny_study.read_text())
    usual = make_plan(parse_study(content, tiny_study.parent))
    larger = make_plan(parse_study(content | {"image_size": 24}, tiny_study.parent))
    shared = usual.stages.keys() & larger.stages.keys()
    assert {usual.stages[key].kind for key in shared} == {"task"}
