"""Errors for users: a line each, and the place as data where it is known."""

from __future__ import annotations

import pickle

import pytest

from mergerisk.errors import Fault, Faults, UserError, located, place


def test_a_place_is_said_as_a_study_file_is_written() -> None:
    assert str(place("merging", 2, "scaling")) == "merging[2].scaling"
    assert str(place("targets", item="release")) == "targets: release"


def test_a_located_error_carries_its_place_and_a_text_in_front_of_it_hides_it() -> None:
    with pytest.raises(UserError) as caught, located(place("experts", "files", "digits")):
        raise UserError("x.safetensors: no such file", "other")
    assert str(caught.value) == "experts.files.digits: x.safetensors: no such file\nexperts.files.digits: other"
    assert [fault.place for fault in caught.value.found] == [place("experts", "files", "digits")] * 2
    assert pickle.loads(pickle.dumps(caught.value)).found == caught.value.found
    with (
        pytest.raises(UserError, match=r"^study\.yaml: experts\.files\.digits: x") as outer,
        located("study.yaml"),
    ):
        raise caught.value
    assert [fault.place for fault in outer.value.found] == [None, None]


def test_collected_faults_are_said_once_in_order_and_keep_their_places() -> None:
    faults, here = Faults(), place("heads")
    for found in (UserError("b"), UserError(Fault("wrong", here), "a"), UserError("b", "heads: wrong")):
        with faults.collecting():
            raise found
    with pytest.raises(UserError) as caught:
        faults.settle()
    assert caught.value.faults == ("b", "heads: wrong", "a")
    assert caught.value.found[1] == Fault("wrong", here)
