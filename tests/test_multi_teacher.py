"""Several teachers: distributions are averaged, features have a projection each, one teacher is CLIPKDLoss."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import kdlosses
from kdlosses.tiles import mixture
from tests.backends.cases import EVERY
from tests.distributed.cases import TEACHERS, Nested, multi_teacher, of_teachers
from tests.problems import BIASES, STUDENT, Inputs, Problem
from tests.running import Outcome, assert_same, leaves, run
from tests.tolerance import assert_close

BATCH = 5
MIXED = ("crd", "cross_kd", "relation")  # distributions are averaged before they are compared
WEIGHTS = (1 / 6, 2 / 6, 3 / 6)  # multi_teacher's, divided by their sum
pytestmark = pytest.mark.filterwarnings("ignore:mfd is combined")


def inputs_of() -> Inputs:
    return of_teachers(batch=BATCH)


def single(inputs: Inputs, number: int) -> Inputs:
    """The inputs of one teacher, under the keywords of a loss for one."""
    own = {key.partition("[")[0]: value for key, value in inputs.items() if key.endswith(f"[{number}]")}
    return {key: inputs[key] for key in (*STUDENT, BIASES[0])} | own


def with_layers_of(loss: Nested, number: int, **keywords: object) -> torch.nn.Module:
    """A loss for one teacher with that teacher's layers."""
    twin = kdlosses.CLIPKDLoss(student_dim=4, teacher_dim=TEACHERS[number], **keywords).double()
    twin.load_state_dict(loss.loss.teachers[number].state_dict())
    return twin


def outcome_of(value: Tensor, given: Inputs, loss: Nested) -> Outcome:
    """As `run`, of a value made from `given` and the parameters of `loss`."""
    (3.7 * value).backward()
    grads = {key: leaf.grad for key, leaf in given.items()}
    return Outcome(value.detach(), grads | {f"param.{name}": p.grad for name, p in loss.named_parameters()})


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("width", [4, 6])
def test_one_teacher_is_the_loss_for_one(variant, width):
    weights = {term: weight for term, weight in EVERY if term != "afd" or variant == "paper"}
    loss = multi_teacher((width,), weights=weights, variant=variant, teacher_weights=[0.3])
    twin = kdlosses.CLIPKDLoss(weights, variant=variant, student_dim=4, teacher_dim=width).double()
    twin.load_state_dict(loss.loss.teachers[0].state_dict())
    inputs = of_teachers((width,), BATCH)
    found, expected = run(loss, inputs), run(twin, single(inputs, 0))
    assert torch.equal(found.value, expected.value)
    for key, wanted in expected.grads.items():
        name = key.replace("param.", "param.loss.teachers.0.") if key.startswith("param.") else key
        got = found.grads[f"{name}[0]" if key.startswith("dist_") else name]
        assert (got is None and wanted is None) or torch.equal(got, wanted)


def similarities(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (left, right)]
    return scale * unit[0] @ unit[1].T


def oracle(term: str, given: Inputs, loss: Nested) -> Tensor:
    """KL(sum_k w_k p_k || q) as it is written, with q of the student (crd) or of each cross relation (cross_kd).

    For affinity the cross-entropy with that average, which is what MobileCLIP minimises.
    """
    total = 0
    sides = [("image", "text", "visual_proj"), ("text", "image", "text_proj")]
    for left, right, projection in sides:
        targets, students = [], []
        for number in range(len(TEACHERS)):
            own = single(given, number)
            teacher = (own[f"dist_{left}_features"].detach(), own[f"dist_{right}_features"].detach())
            targets.append(similarities(*teacher, own["dist_logit_scale"].detach()).softmax(1))
            layers = loss.loss.teachers[number]
            if term == "cross_kd":
                rows = given[f"{left}_features"]
                rows = getattr(layers, projection)(rows) if hasattr(layers, projection) else rows
                students.append(similarities(rows, teacher[1], layers.cross_logit_scale.exp()))
        average = sum(w * p for w, p in zip(WEIGHTS, targets, strict=True))
        if term != "cross_kd":
            logits = similarities(given[f"{left}_features"], given[f"{right}_features"], given["logit_scale"])
            entropy = 0 if term == "affinity" else -(average * average.log()).sum(1).mean()
            total = total + (torch.nn.functional.cross_entropy(logits, average) - entropy) / 2
        for w, logits in zip(WEIGHTS, students, strict=False):
            total = total + w * (average * (average.log() - logits.log_softmax(1))).sum(1).mean() / 2
    return total


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize("term", ["crd", "cross_kd", "affinity"])
def test_distributions_are_averaged(term, backend):
    loss = multi_teacher(weights={term: 1.0}, backend=backend)
    found, given = run(loss, inputs_of()), leaves(inputs_of())
    loss.zero_grad(set_to_none=True)
    assert_same(found, outcome_of(oracle(term, given, loss), given, loss))


def test_the_gradient_is_that_of_the_weighted_kls():
    """Their values differ by how far the teachers are apart, a constant."""
    loss, given = multi_teacher(weights={"crd": 1.0}), leaves(inputs_of())
    found = run(loss, inputs_of())
    apart = sum(w * kdlosses.CRDLoss()(**single(given, number)) for number, w in enumerate(WEIGHTS))
    outcome = outcome_of(apart, given, loss)
    assert apart > found.value + 0.01
    assert_same(Outcome(apart.detach(), found.grads), outcome)


def test_no_divergence_from_teachers_that_agree_with_the_student():
    inputs = {key: value for key, value in of_teachers((4, 4), BATCH).items() if key in STUDENT}
    for number in range(2):
        inputs |= {f"dist_{key}[{number}]": inputs[key] for key in STUDENT}
    value = multi_teacher((4, 4), weights={"crd": 1.0})(**inputs)
    assert abs(value.item()) < 1e-12


@pytest.mark.parametrize("term", [term for term in kdlosses.available_terms(without_options=True) if term not in MIXED])
def test_other_terms_are_averaged(term):
    loss, given = multi_teacher(weights={term: 2.0}), leaves(inputs_of())
    found = run(loss, inputs_of())
    loss.zero_grad(set_to_none=True)
    parts = [
        torch.func.functional_call(
            kdlosses.CLIPKDLoss({term: 2.0}, student_dim=4, teacher_dim=width).double(),
            dict(loss.loss.teachers[number].named_parameters()),
            (),
            single(given, number),
        )
        for number, width in enumerate(TEACHERS)
    ]
    once = term in ("contrastive", "siglip")  # they have no teacher
    total = parts[0] if once else sum(w * part for w, part in zip(WEIGHTS, parts, strict=True))
    assert_same(found, outcome_of(total, given, loss))


def test_each_teacher_has_layers_of_its_own():
    loss = multi_teacher(weights={"fd": 1.0, "icl": 1.0, "afd": 1.0}).loss
    shapes = {name: tuple(p.shape) for name, p in loss.named_parameters()}
    assert shapes["teachers.0.visual_proj.weight"] == (6, 4)
    assert shapes["teachers.1.text_proj.weight"] == (3, 4)
    assert "teachers.2.visual_proj.weight" not in shapes  # as wide as the student
    assert shapes["teachers.2.visual_fusion_proj.weight"] == (4, 8)
    assert [name for name in shapes if name.endswith("cross_logit_scale")] == [
        f"teachers.{number}.cross_logit_scale" for number in range(3)
    ]
    with torch.no_grad():
        for layers in loss.teachers:
            layers.cross_logit_scale.fill_(9.0)
    loss.clamp_scales()
    assert all(layers.cross_logit_scale.exp() <= 100 for layers in loss.teachers)


def test_only_the_ratio_of_teacher_weights_counts():
    values = [multi_teacher(teacher_weights=w)(**inputs_of()) for w in ((1, 2, 3), (0.5, 1.0, 1.5))]
    assert_close(*values)
    assert multi_teacher(teacher_weights=None).loss.teacher_weights == (1 / 3,) * 3


def test_terms_sum_to_the_scalar_and_teachers_get_no_gradient():
    loss, inputs = multi_teacher(), leaves(inputs_of())
    terms = loss(**inputs, output_dict=True)
    assert list(terms) == [f"{term}_loss" for term in dict(EVERY)]
    total = loss(**inputs)
    assert_close(sum(terms.values()).detach(), total.detach())
    total.backward()
    assert all((inputs[key].grad is None) == key.startswith("dist_") for key in inputs)
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_the_students_matrix_is_made_once():
    products = []

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.mm and result.shape == (BATCH, BATCH):
                products.append(result)
            return result

    loss = multi_teacher(weights={"contrastive": 1.0, "crd": 1.0}, backend="dense")
    with Count():
        loss(**inputs_of())
    assert len(products) == 1 + len(TEACHERS)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_mixture_goes_through_blocks_of_rows(rows, monkeypatch):
    whole = multi_teacher(weights={"crd": 1.0})(**inputs_of())
    monkeypatch.setattr(mixture, "_LEAST_ROWS", rows)
    monkeypatch.setitem(mixture._BLOCK, "cpu", 0)
    assert_close(multi_teacher(weights={"crd": 1.0})(**inputs_of()).detach(), whole.detach())


@pytest.mark.slow
@pytest.mark.parametrize("terms", [("fd", "icl"), ("crd", "fd", "icl"), ("contrastive", "gd")], ids="+".join)
def test_it_compiles_to_one_graph(terms):
    torch._dynamo.reset()
    loss = multi_teacher(weights=dict.fromkeys(terms, 1.0))
    found = run(torch.compile(loss, fullgraph=True, backend="eager"), inputs_of())
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), run(loss, inputs_of()))


@pytest.mark.slow
def test_it_is_compiled_twice_at_most_for_any_number_of_rows():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    loss = multi_teacher(weights=dict.fromkeys(("crd", "affinity", "gd"), 1.0))
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True)
    for count in (4, 3, 2):
        inputs = {key: value[:count] if value.ndim == 2 else value for key, value in inputs_of().items()}
        assert torch.equal(compiled(**inputs), loss(**inputs))
    assert counter.frame_count <= 2


def test_dtypes():
    half = {key: value.bfloat16() for key, value in inputs_of().items()}
    assert multi_teacher().float()(**half).dtype == torch.float32
    one_wide = {key: value.float() for key, value in inputs_of().items()}
    one_wide["dist_text_features[1]"] = one_wide["dist_text_features[1]"].double()
    value = multi_teacher()(**one_wide)
    assert value.dtype == torch.float64
    assert_close(value, multi_teacher()(**{key: v.float().double() for key, v in inputs_of().items()}))


def test_state_and_copies():
    loss, file = multi_teacher(), io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = Nested(
        kdlosses.MultiTeacherLoss(dict(EVERY), student_dim=4, teacher_dims=TEACHERS, teacher_weights=(1, 2, 3))
    )
    fresh.double().load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(**inputs_of()), loss(**inputs_of()))
    assert torch.equal(copy.deepcopy(loss)(**inputs_of()), loss(**inputs_of()))
    assert "0.333333 x 3" in repr(loss)


class TestRefusals:
    def loss(self, **keywords: object) -> kdlosses.MultiTeacherLoss:
        return kdlosses.MultiTeacherLoss(student_dim=4, **{"teacher_dims": (6, 3)} | keywords).double()

    def inputs(self) -> dict[str, object]:
        problems = [Problem(student_dim=4, teacher_dim=width).inputs() for width in (6, 3)]
        lists = {key: [one[key] for one in problems] for key in problems[0] if key.startswith("dist_")}
        return {key: problems[0][key] for key in STUDENT} | lists

    def test_the_inputs_are_right(self):
        assert self.loss()(**self.inputs()).isfinite()

    @pytest.mark.parametrize("key", ["dist_image_features", "dist_text_features", "dist_logit_scale"])
    @pytest.mark.parametrize(
        ("spoil", "got"), [(lambda x: x[:1], "1"), (lambda x: x[0], "Tensor"), (lambda x: 3, "int")]
    )
    def test_one_entry_a_teacher(self, key, spoil, got):
        inputs = self.inputs()
        with pytest.raises(ValueError, match=f"{key} must be a list of 2 entries, one for each teacher, got {got}"):
            self.loss()(**inputs | {key: spoil(inputs[key])})

    def test_the_teacher_is_named(self):
        inputs = self.inputs()
        inputs["dist_image_features"] = [inputs["dist_image_features"][0]] * 2
        with pytest.raises(ValueError, match="teacher 1: dist_image_features has width 6 but"):
            self.loss()(**inputs)
        with pytest.raises(ValueError, match=r"teacher 1: .*student_dim=4, teacher_dim=5 but was called with"):
            self.loss(teacher_dims=(6, 5))(**self.inputs())

    def test_missing_outputs_are_named(self):
        inputs = {key: self.inputs()[key] for key in STUDENT}
        with pytest.raises(ValueError, match="missing: dist_image_features, dist_text_features, dist_logit_scale"):
            self.loss()(**inputs)
        assert self.loss(weights={"contrastive": 1.0})(**inputs).isfinite()

    @pytest.mark.parametrize(
        ("keywords", "words"),
        [
            ({"teacher_dims": ()}, "at least one teacher"),
            ({"teacher_dims": (6, 0)}, r"teacher_dims\[1\] must be a positive integer"),
            ({"student_dim": None}, "student_dim"),
            ({"teacher_weights": (1.0,)}, "teacher_weights must have 2 entries, one for each of teacher_dims, got 1"),
            ({"teacher_weights": (1.0, 0.0)}, "weight of teacher 1 must be above zero"),
            ({"teacher_weights": (1.0, -2.0)}, "weight of 'teacher 1' must be a finite number"),
            ({"weights": {"ckd": 1.0}}, "ckd"),
            ({"variant": "released", "weights": {"afd": 1.0}}, "cannot run afd"),
        ],
    )
    def test_what_it_is_built_from(self, keywords, words):
        settings = {"student_dim": 4, "teacher_dims": (6, 3)} | keywords
        with pytest.raises(ValueError, match=words):
            kdlosses.MultiTeacherLoss(**settings)
