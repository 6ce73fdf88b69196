"""What recipes know of kdlosses without importing it is what kdlosses itself says."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

import kdlosses
from harness.config import LossConfig, terms
from kdlosses import backends
from kdlosses.registry import get_term


def test_terms_are_those_of_the_registry():
    known = terms.known_terms()
    assert list(known) == kdlosses.available_terms()
    for name, info in known.items():
        loss = get_term(name)
        for fact in fields(info):
            assert getattr(info, fact.name) == getattr(loss, fact.name), fact.name


def test_backends_and_their_options_are_those_of_kdlosses():
    expected = {name: tuple(backends.options(name)) for name in backends.available()}
    assert terms.known_backends() == expected
    assert any(expected.values())


def test_terms_are_found_by_what_they_read():
    names = kdlosses.available_terms()
    for need in ("scale", "teacher", "bias", "teacher_bias", "aligned", "masked"):
        found = tuple(name for name in names if need in get_term(name).needs)
        assert terms.terms_reading(names, need) == found != ()


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": {"contrastive": 1, "crd": 0}},
        {"weights": {"contrastive": 0, "crd": 0}},
        {"weights": {}},
        {"weights": {"gd": 1e8}},
        {"weights": {"gd": 1e8}, "variant": "released"},
        {"weights": {"gd": 1e5}},
        {"weights": {"affinity": 1}, "options": {"affinity": {"teacher_scale": 100}}},
        {"weights": {"affinity": 1}, "options": {"affinity": {"teacher_scale": None}}},
        {"weights": {"affinity": 1}, "options": {"affinity": {"teacher_scale": 0}}},
        {"weights": {"affinity": 1}, "options": {"affinity": {"scale": 1}}},
        {"weights": {"affinity": 0, "crd": 1}, "options": {"affinity": {"teacher_scale": 1}}},
        {"weights": {"crd": 1}, "options": {"affinity": {"teacher_scale": 1}}},
        {"weights": {"crd": 1}, "options": {"affinity": {}}},
        {"weights": {"crd": 1}, "options": {"crd": {"scale": 1}}},
        {"weights": {"crd": 1}, "options": {"crd": {}}},
        {"weights": {"affinity": 1}, "options": {"affinity": {"teacher_scale": "9"}}},
        {"weights": {"soft": 1, "affinity": 1}, "terms": {"soft": {"loss": "affinity", "teacher_scale": 9}}},
        {"weights": {"soft": 1}, "terms": {"soft": {"loss": "affinity"}}, "options": {"soft": {"teacher_scale": 9}}},
        {
            "weights": {"soft": 1},
            "terms": {"soft": {"loss": "affinity", "teacher_scale": 9}},
            "options": {"soft": {"teacher_scale": 9}},
        },
        {"weights": {"soft": 1}, "terms": {"soft": {"loss": "affinty"}}},
        {"weights": {"soft": 1}, "terms": {"soft": {"loss": "affinity", "scale": 9}}},
        {"weights": {"soft": 1}, "terms": {"soft": {"loss": "affinity", "teacher_scale": 0}}},
        {"weights": {"soft": 1}, "terms": {"soft": {"teacher_scale": 9}}},
        {"weights": {"crd": 1}, "terms": {"crd": {"loss": "affinity"}}},
        {"weights": {"crd": 1}, "terms": {"soft": {"loss": "affinity"}}},
        {"weights": {"so ft": 1}, "terms": {"so ft": {"loss": "affinity"}}},
        {"weights": {"big": 1e8}, "terms": {"big": {"loss": "gd"}}},
    ],
)
def test_a_loss_section_is_refused_exactly_when_kdlosses_refuses_it(settings):
    try:
        kdlosses.CLIPKDLoss(**settings, student_dim=4, teacher_dim=4)
    except ValueError:
        with pytest.raises(ValidationError):
            LossConfig.model_validate(settings)
    else:
        assert LossConfig.model_validate(settings).active
