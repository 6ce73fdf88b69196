"""Every mistake a caller can make is one ValueError that names what is wrong and what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kdlosses
from kdlosses import register
from tests.problems import BIASES, STUDENT, TEACHER, Problem
from tests.running import build

NAMES = kdlosses.available_losses(without_options=True)
NEED_TEACHER = [name for name in NAMES if name not in ("contrastive", "siglip")]
SPACE_SHARING = ["fd", "mfd", "gd", "icl", "cross_kd", "vrd", "xrd", "clip_kd"]  # those with P where the widths differ
MIXED = Problem(student_dim=13, teacher_dim=29)
each_loss = pytest.mark.parametrize("name", NAMES)
# Inputs are validated before any term sees them, so one loss stands for all; `test_every_loss_validates` holds that.
FEATURES = ("image_features", "text_features", "dist_image_features", "dist_text_features", "masked_image_features")
each_feature = pytest.mark.parametrize("key", FEATURES)


def naming(*words: object) -> str:
    """A pattern for messages that hold all these words, in any order."""
    return "".join(rf"(?=[\s\S]*(?<!\w){word}(?!\w))" for word in words)


def whole() -> dict[str, torch.Tensor]:
    """All that a loss can be called with."""
    return MIXED.inputs() | {"masked_image_features": MIXED.with_(seed=7).inputs()["image_features"]}


def call(inputs: dict[str, object], name: str = "clip_kd", **keywords: object) -> torch.Tensor:
    return build(name, MIXED, **keywords)(**inputs)


def call_with_teachers(inputs: dict[str, object], **keywords: object) -> torch.Tensor:
    """The same teacher twice: what is wrong with an input of a teacher's is wrong with the second one."""
    teachers = {key: [MIXED.inputs()[key], value] for key, value in inputs.items() if key.startswith("dist_")}
    loss = kdlosses.MultiTeacherLoss(student_dim=13, teacher_dims=[29, 29], **keywords).double()
    return loss(**inputs | teachers)


@pytest.mark.parametrize("name", SPACE_SHARING)
def test_missing_widths_are_told(name):
    with pytest.raises(ValueError, match=naming(13, 29)):
        kdlosses.build(name)(**MIXED.inputs())


def test_afd_needs_widths_from_the_start():
    with pytest.raises(ValueError, match=naming("student_dim", "teacher_dim")):
        kdlosses.AFDLoss()


@pytest.mark.parametrize("name", [*SPACE_SHARING, "afd"])
@pytest.mark.parametrize("dims", [{"student_dim": 13}, {"teacher_dim": 29}], ids=["student", "teacher"])
def test_one_width_alone_is_refused(name, dims):
    with pytest.raises(ValueError, match=naming("student_dim", "teacher_dim", *dims.values())):
        kdlosses.build(name, **dims)


@each_loss
@pytest.mark.parametrize(("student", "teacher"), [(17, 29), (13, 31)], ids=["student", "teacher"])
def test_wrong_widths_are_told(name, student, teacher):
    loss, inputs = build(name, MIXED), MIXED.with_(student_dim=student, teacher_dim=teacher).inputs()
    with pytest.raises(ValueError, match=naming(13, 29, student, teacher)):
        loss(**inputs)


@pytest.mark.parametrize("width", [0, -3, 2.0, True, "8"])
def test_a_width_is_a_positive_integer(width):
    with pytest.raises(ValueError, match="student_dim"):
        kdlosses.FDLoss(student_dim=width, teacher_dim=4)


def test_released_afd_refuses_mixed_widths():
    with pytest.raises(ValueError, match=naming(13, 29)):
        kdlosses.AFDLoss(variant="released", **MIXED.dims)


@each_feature
@pytest.mark.parametrize("rows", [slice(3), [0, 1, 2, 3, 4, 4]], ids=["fewer", "more"])
def test_batch_sizes_must_match(key, rows):
    inputs = whole()
    inputs[key] = inputs[key][rows]
    count = len(inputs[key])
    with pytest.raises(ValueError, match=naming(key, count, 5) if key != "image_features" else naming(key, count)):
        call(inputs)


@pytest.mark.parametrize("key", ["text_features", "dist_text_features", "masked_image_features"])
@pytest.mark.parametrize("change", [-1, 1], ids=["narrower", "wider"])
def test_the_two_towers_of_a_model_share_a_width(key, change):
    inputs = whole()
    width = inputs[key].shape[1]
    inputs[key] = torch.ones(5, width + change, dtype=torch.float64)
    with pytest.raises(ValueError, match=naming(key, width, width + change)):
        call(inputs)


@each_feature
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda x: x[0], id="rank-1"),
        pytest.param(lambda x: x.unsqueeze(0), id="rank-3"),
        pytest.param(lambda x: x[:0], id="empty"),
        pytest.param(lambda x: x[:, :0], id="no-width"),
        pytest.param(lambda x: x.long(), id="integer"),
        pytest.param(lambda x: x.tolist(), id="list"),
    ],
)
def test_features_are_floating_point_rows(key, spoil):
    inputs = whole()
    with pytest.raises(ValueError, match=key):
        call(inputs | {key: spoil(inputs[key])})


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_at_all_are_refused(rows):
    inputs = {key: value[:rows] if value.ndim == 2 else value for key, value in whole().items()}
    if rows:
        assert call(inputs).isfinite()
    else:
        with pytest.raises(ValueError, match="image_features must have shape"):
            call(inputs)


@pytest.mark.parametrize("key", ["logit_scale", "dist_logit_scale", *BIASES])
@pytest.mark.parametrize("scale", [torch.ones(2), torch.ones(1, 1), torch.tensor(3), "20", True], ids=str)
def test_a_scale_is_a_number_or_one_element(key, scale):
    with pytest.raises(ValueError, match=key):
        call(whole() | {key: scale})


@each_loss
def test_every_loss_validates(name):
    """Rows, scales and biases, also those that it does not read."""
    spoiled = [{key: value[:3]} for key, value in whole().items() if value.ndim]
    spoiled += [{key: torch.ones(2)} for key, value in whole().items() if not value.ndim]
    for change in spoiled:
        with pytest.raises(ValueError, match=naming(*change) if "image_features" not in change else "rows"):
            call(whole() | change, name)


@each_loss
def test_the_students_scale_is_not_optional(name):
    with pytest.raises(ValueError, match="logit_scale"):
        build(name, MIXED)(**MIXED.inputs() | {"logit_scale": None})


@pytest.mark.parametrize("name", NEED_TEACHER)
@pytest.mark.parametrize("missing", ["dist_image_features", "dist_text_features"])
def test_missing_teacher_features_are_named(name, missing):
    inputs = {key: value for key, value in MIXED.inputs().items() if key != missing}
    if (name, missing) == ("relation", "dist_text_features"):  # of images among themselves
        assert torch.equal(build(name, MIXED)(**inputs), build(name, MIXED)(**MIXED.inputs()))
        return
    with pytest.raises(ValueError, match=missing):
        build(name, MIXED)(**inputs)


@each_loss
def test_the_teachers_scale_is_asked_of_those_that_read_it(name):
    inputs = {key: value for key, value in MIXED.inputs().items() if key != "dist_logit_scale"}
    if name in {"sigmoid_kd", "crd", "affinity", "gd", "cross_kd", "clip_kd", "relation", "decoupled_affinity"}:
        with pytest.raises(ValueError, match="dist_logit_scale"):
            build(name, MIXED)(**inputs)
    else:
        assert torch.equal(build(name, MIXED)(**inputs), build(name, MIXED)(**MIXED.inputs()))


@each_loss
@pytest.mark.parametrize("key", BIASES)
def test_a_missing_bias_is_said_with_the_way_out_where_it_is_read(name, key):
    inputs = {other: value for other, value in MIXED.inputs().items() if other != key}
    readers = {"logit_bias": {"siglip", "sigmoid_kd"}, "dist_logit_bias": {"sigmoid_kd"}}
    if name in readers[key]:
        with pytest.raises(
            ValueError, match=rf"{type(build(name, MIXED)).__name__} .* {key}, which is missing; .*0\.0"
        ):
            build(name, MIXED)(**inputs)
    else:
        assert torch.equal(build(name, MIXED)(**inputs), build(name, MIXED)(**MIXED.inputs()))


def test_a_softmaxs_teacher_is_told_from_a_sigmoids():
    inputs = {key: value for key, value in MIXED.inputs().items() if key != "dist_logit_bias"}
    with pytest.raises(ValueError, match="trained with a softmax has none and its sigmoid means nothing"):
        build("sigmoid_kd", MIXED)(**inputs)
    assert build("sigmoid_kd", MIXED)(**inputs, dist_logit_bias=0.0).isfinite()


@pytest.mark.parametrize("key", [*STUDENT, *TEACHER, *BIASES, "masked_image_features"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_inputs_raise_when_asked(key, bad):
    inputs = whole()
    inputs[key].view(-1)[-1] = bad
    with pytest.raises(ValueError, match=rf"^{key} .*non-finite"):
        call(inputs, check=True)
    call(inputs)  # and never otherwise: the look costs a host sync
    with pytest.raises(ValueError, match=rf"^teacher {int(key.startswith('dist_'))}: {key} .*non-finite"):
        call_with_teachers(inputs, check=True)
    call_with_teachers(inputs)


@each_loss
def test_every_loss_looks_at_its_inputs_when_asked(name):
    inputs = MIXED.inputs()
    inputs["text_features"][2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"^text_features .*non-finite"):
        call(inputs, name, check=True)
    call(inputs, name)


@each_loss
def test_check_passes_clean_inputs(name):
    loss = build(name, MIXED, check=True)
    assert torch.equal(loss(**MIXED.inputs()), build(name, MIXED)(**MIXED.inputs()))


@each_loss
def test_unknown_variant_lists_the_known(name):
    with pytest.raises(ValueError, match=naming("papper", "paper", "released")):
        kdlosses.build(name, variant="papper", **MIXED.dims)


@each_loss
def test_unknown_backend_lists_the_known(name):
    with pytest.raises(ValueError, match=naming("tritton", "auto", "dense")):
        kdlosses.build(name, backend="tritton", **MIXED.dims)


def test_unknown_loss_lists_the_known():
    with pytest.raises(ValueError, match=naming("crdd", *NAMES)):
        kdlosses.build("crdd")


def test_unknown_term_lists_the_known():
    with pytest.raises(ValueError, match=naming("ckd", *kdlosses.available_terms())):
        kdlosses.CLIPKDLoss({"contrastive": 1.0, "ckd": 1.0})
    with pytest.raises(ValueError, match="clip_kd"):
        kdlosses.CLIPKDLoss({"clip_kd": 1.0})


@pytest.mark.parametrize("weight", [-1.0, -0.1, float("nan"), float("inf"), "1", None, True], ids=str)
def test_a_weight_is_a_finite_number_not_below_zero(weight):
    with pytest.raises(ValueError, match=naming("crd")):
        kdlosses.CLIPKDLoss({"contrastive": 1.0, "crd": weight})


@pytest.mark.parametrize("weights", [{}, {"crd": 0.0}])
def test_no_term_at_all_is_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        kdlosses.CLIPKDLoss(weights)


def test_the_released_gd_weight_is_refused_in_the_paper_variant():
    with pytest.raises(ValueError, match=naming("gd", "released")):
        kdlosses.CLIPKDLoss({"contrastive": 1.0, "gd": 1e8})
    kdlosses.CLIPKDLoss({"contrastive": 1.0, "gd": 1e8}, variant="released")
    kdlosses.CLIPKDLoss({"contrastive": 1.0, "gd": 1e5 * 32**2})  # what the paper's grows to at 32,768 pairs


@pytest.mark.parametrize("weights", [["crd"], "crd", {"crd", "fd"}])
def test_weights_that_are_no_mapping_are_said(weights):
    with pytest.raises(ValueError, match="weights must map terms to numbers"):
        kdlosses.CLIPKDLoss(weights)


def test_numbers_of_numpy_are_numbers():
    loss = kdlosses.CLIPKDLoss({"contrastive": np.float32(2)})
    inputs = Problem().inputs()
    value = loss(inputs["image_features"], inputs["text_features"], np.float32(10))
    assert torch.equal(value, loss(inputs["image_features"], inputs["text_features"], 10.0))


def test_a_loss_with_an_unknown_need_cannot_be_registered():
    term = type("Typo", (kdlosses.Term,), {"name": "typo", "needs": frozenset({"techer"})})
    with pytest.raises(ValueError, match=r"need of term Typo 'techer' is unknown; .*did you mean 'teacher'"):
        register(term)
    assert "typo" not in kdlosses.available_losses()


@pytest.mark.parametrize("name", ["icl", "fd", "afd", "clip_kd"])
def test_a_loss_that_was_not_moved_says_so(name):
    with pytest.raises(ValueError, match=r"parameter \S+ is on meta but .* is on cpu; .*loss\.to\('cpu'\)"):
        build(name, MIXED).to("meta")(**MIXED.inputs())


def test_a_loss_for_several_teachers_that_was_not_moved_says_so():
    inputs = MIXED.inputs()
    teacher = {key: [value] for key, value in inputs.items() if key.startswith("dist_")}
    loss = kdlosses.MultiTeacherLoss(student_dim=13, teacher_dims=[29]).to("meta")
    with pytest.raises(ValueError, match=r"MultiTeacherLoss's parameter teachers\.0\.\S+ is on meta"):
        loss(**(inputs | teacher))
