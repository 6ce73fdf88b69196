"""Group ids and label smoothing: more than one positive a row, in value and gradients, without a matrix for it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kdlosses
from kdlosses import backends
from kdlosses.relation import Relation
from kdlosses.rows import rows_of
from kdlosses.soft_labels import GroupSigmoidCrossEntropy, LabelGap
from tests import oracles, strategies
from tests.backends.subjects import OF_TORCH, subject
from tests.backends.watching import Watch
from tests.distributed.cases import multi_teacher, of_teachers
from tests.problems import Inputs, Problem, permuted
from tests.running import Outcome, assert_same, assert_teacher_untouched, build, run, run_oracle
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
IDS = (7, -2, 7, 3, -2)
ORACLES = {
    "contrastive": oracles.grouped_contrastive,
    "icl": oracles.grouped_icl,
    "siglip": oracles.grouped_siglip,
}
TOLD: list[tuple[str, dict[str, Any]]] = [
    ("contrastive", {"label_smoothing": 0.0}),
    ("contrastive", {"label_smoothing": 0.3}),
    ("icl", {"label_smoothing": 0.0}),
    ("icl", {"label_smoothing": 0.3}),
    ("siglip", {"positive_weight": "mean"}),
    ("siglip", {"positive_weight": "one"}),
]
each_loss = pytest.mark.parametrize(("name", "told"), TOLD, ids=lambda one: one if isinstance(one, str) else str(one))
CHUNKED = backends.create("chunked", chunk_size=2)


def with_ids(inputs: Inputs, ids: Any = IDS) -> Inputs:
    return inputs | {"group_ids": torch.as_tensor(ids)}


def outcomes(name: str, told: dict[str, Any], problem: Problem, ids: Any, **keywords: Any) -> tuple[Outcome, Outcome]:
    """What the loss and its oracle make of a problem."""
    loss, inputs = build(name, problem, **told, **keywords), problem.inputs()
    params = {key: value.detach() for key, value in loss.named_parameters()}
    oracle = partial(ORACLES[name], groups=list(ids), **{_OF_ORACLE[key]: value for key, value in told.items()})
    expected = run_oracle(name, inputs, params, keywords.get("variant", "paper"), oracle=lambda w: oracle(w))
    return run(loss, with_ids(inputs, ids)), Outcome(expected.value, expected.grads | {"group_ids": None})


_OF_ORACLE = {"label_smoothing": "smoothing", "positive_weight": "weight"}


@each_loss
@given(problem=strategies.problems(max_batch=6), data=st.data())
def test_value_and_gradients(name, told, problem, data):
    ids = data.draw(st.lists(st.integers(-2, 2), min_size=problem.batch, max_size=problem.batch))
    backend = data.draw(st.sampled_from(["dense", CHUNKED]))
    found, expected = outcomes(name, told, problem, ids, backend=backend)
    assert_same(found, expected)
    assert_teacher_untouched(found)


def test_as_released():
    assert_same(*outcomes("icl", {"label_smoothing": 0.2}, MIXED, IDS, variant="released"))


@each_loss
@pytest.mark.parametrize("backend", ["dense", CHUNKED, "reference"], ids=str)
def test_ids_that_are_all_different_change_no_bit(name, told, backend):
    if backend == "reference" and (name == "siglip" or told != {"label_smoothing": 0.0}):
        return  # definitions by other formulas, or other sums
    inputs = MIXED.inputs(torch.float32)
    loss = build(name, MIXED, dtype=torch.float32, backend=backend, **told)
    found, plain = run(loss, with_ids(inputs, (5, 1, 9, 2, 4))), run(loss, inputs)
    if name == "siglip" or told.get("label_smoothing"):  # no bits are promised where the sums are others
        assert_same(found, Outcome(plain.value, plain.grads | {"group_ids": None}), torch.float32)
        return
    assert torch.equal(found.value, plain.value)
    for key, wanted in plain.grads.items():
        assert wanted is None or torch.equal(found.grads[key], wanted), key


@each_loss
@given(order=st.permutations(range(5)), names=st.permutations([7, -2, 3]))
def test_neither_the_order_of_pairs_nor_the_names_of_groups_matter(name, told, order, names):
    loss, inputs = build(name, MIXED, **told), with_ids(MIXED.inputs())
    renamed = [names[(7, -2, 3).index(one)] for one in IDS]
    assert_close(loss(**permuted(inputs, torch.tensor(order))), loss(**inputs))
    assert_close(loss(**with_ids(inputs, renamed)), loss(**inputs))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothing_is_torchs(smoothing):
    inputs, own = Problem().inputs(), torch.arange(5)
    image, text = (F.normalize(inputs[f"{side}_features"], dim=1) for side in ("image", "text"))
    logits = inputs["logit_scale"] * image @ text.T
    theirs = [F.cross_entropy(table, own, label_smoothing=smoothing) for table in (logits, logits.T)]
    assert_close(kdlosses.CLIPLoss(label_smoothing=smoothing)(**inputs), sum(theirs) / 2)


def test_one_group_for_all_has_the_uniform_distribution_for_its_labels():
    inputs = Problem().inputs()
    alike = kdlosses.CLIPLoss()(**with_ids(inputs, [0] * 5))
    smooth = [kdlosses.CLIPLoss(label_smoothing=share)(**inputs) for share in (0.2, 0.4)]
    assert_close(alike, smooth[0] + 4 * (smooth[1] - smooth[0]))  # linear in the labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@each_loss
def test_other_dtypes_and_autocast(name, told, dtype):
    inputs = with_ids(Problem(scale=5.0).inputs(dtype))
    loss = build(name, Problem(), dtype=torch.float32, **told)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(loss, inputs)
    wide = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    expected = run(build(name, Problem(), **told), wide)
    assert_close(found.value, expected.value, torch.float32)
    for key in ("image_features", "text_features"):
        assert found.grads[key].dtype == dtype
        assert_close(found.grads[key], expected.grads[key], dtype)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_integers_of_any_width(kind):
    inputs = Problem().inputs()
    ids = torch.tensor([3, 1, 3, 1, 2])
    loss = kdlosses.CLIPLoss()
    assert torch.equal(loss(**inputs, group_ids=ids.to(kind)), loss(**inputs, group_ids=ids))


def test_other_terms_do_not_read_them():
    weights = {"crd": 1.0, "fd": 2.0, "affinity": 3.0, "gd": 1.0, "sigmoid_kd": 1.0}
    inputs = Problem().inputs()
    loss = build("clip_kd", Problem(), weights=weights)
    assert torch.equal(loss(**with_ids(inputs)), loss(**inputs))


def test_in_sums_with_several_teachers_and_in_wrappers():
    weights, inputs = {"contrastive": 1.0, "icl": 2.0, "siglip": 0.5}, MIXED.inputs()
    options = {"icl": {"label_smoothing": 0.2}, "siglip": {"positive_weight": "one"}}
    ids = torch.tensor(IDS)
    whole = build("clip_kd", MIXED, weights=weights, options=options)
    found = whole(**inputs, group_ids=ids, output_dict=True)
    plain = whole(**inputs, output_dict=True)
    for term, weight in weights.items():
        alone = kdlosses.build(term, **MIXED.dims, **options.get(term, {})).double()
        alone.load_state_dict({key: value for key, value in whole.state_dict().items() if key in alone.state_dict()})
        assert_close(found[f"{term}_loss"], weight * alone(**inputs, group_ids=ids), message=term)
        assert found[f"{term}_loss"] != plain[f"{term}_loss"]
    captions = kdlosses.MultiCaptionLoss(whole)
    texts = {key: [inputs[key]] for key in ("text_features", "dist_text_features")}
    assert_close(captions(**inputs | texts, group_ids=ids), sum(found.values()))
    several = multi_teacher(weights=weights, options=options).loss
    flat = of_teachers(batch=5)
    lists = {key: [flat[f"{key}[{n}]"] for n in range(3)] for key in MIXED.inputs() if f"{key}[0]" in flat}
    given = {key: flat[key] for key in ("image_features", "text_features", "logit_scale", "logit_bias")} | lists
    terms = [several(**given, group_ids=one, output_dict=True) for one in (ids, None)]
    assert all(terms[0][key] != terms[1][key] for key in terms[0])


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([1, 2, 3, 4, 5], "must be a tensor .* of integers, one for each pair, got list"),
        (torch.rand(5), "must be a tensor .* of integers, one for each pair, got torch.float32"),
        (torch.ones(5, dtype=torch.bool), "of integers, one for each pair, got torch.bool"),
        (torch.arange(4), r"must have shape \[5\], one for each pair, got \[4\]"),
        (torch.arange(5)[:, None], r"must have shape \[5\], one for each pair, got \[5, 1\]"),
        (torch.zeros(5, dtype=torch.int64, device="meta"), "group_ids is on meta but image_features is on cpu"),
    ],
    ids=range(6),
)
def test_what_is_wrong_is_told(ids, says):
    with pytest.raises(ValueError, match=f"group_ids .*{says}|{says}"):
        kdlosses.CLIPLoss()(**Problem().inputs(), group_ids=ids)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5])
@pytest.mark.parametrize("name", ["contrastive", "icl"])
def test_smoothing_is_a_share(name, value):
    with pytest.raises(ValueError, match=f"option label_smoothing of term '{name}' must be at least 0 and below 1"):
        kdlosses.build(name, label_smoothing=value)


def test_a_positive_weighs_one_or_a_share():
    with pytest.raises(ValueError, match="option positive_weight of term 'siglip' must be one of 'mean', 'one'"):
        kdlosses.SigLIPLoss(positive_weight="sum")


def test_shapes_can_be_tried_out_without_numbers():
    inputs = {key: value.to("meta") for key, value in with_ids(MIXED.inputs(torch.float32)).items()}
    for name, told in TOLD:
        assert build(name, MIXED, dtype=torch.float32, **told).to("meta")(**inputs).shape == ()


@pytest.mark.parametrize("label", OF_TORCH)
def test_requests_on_a_shard(label):
    """Rows 2 to 4 of six, whose groups are those of the keys at their places."""
    tested = subject(label)
    generator = torch.Generator().manual_seed(4)
    values = [torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 6)]
    queries, keys = (one.to(tested.device, tested.dtype).requires_grad_() for one in values)
    groups = torch.tensor([1, 5, 1, 1, 5, 0])
    scale, bias = torch.tensor(5.0, dtype=tested.dtype), torch.tensor(-1.0, dtype=tested.dtype)
    every = rows_of(keys, tested.dtype, groups=groups)
    relation = Relation(rows_of(queries, tested.dtype), every, scale, offset=2)
    logits = 5.0 * F.normalize(values[0], dim=1) @ F.normalize(values[1], dim=1).T
    positives = groups[2:5, None] == groups
    shares = positives / positives.sum(1, keepdim=True)
    gap = logits.diagonal(2) - ((0.75 * shares + 0.25 / 6) * logits).sum(1)
    sigmoids = torch.where(positives, shares * F.softplus(1 - logits), F.softplus(logits - 1)).sum(1)
    found = tested.backend.evaluate([LabelGap(relation, 0.25), GroupSigmoidCrossEntropy(relation, bias)])
    assert_close(found[0], gap, torch.float32)
    assert_close(found[1], sigmoids, torch.float32)


def test_no_matrix_of_pairs_is_made():
    """Tiles of 32 x 32 for 256 pairs of width 8; half the ids are equal."""
    ids, backend = torch.arange(256) // 2, backends.create("chunked", chunk_size=32)
    inputs = Problem(batch=256, student_dim=8, teacher_dim=8).inputs(torch.float32)
    for name, told in TOLD:
        loss = build(name, Problem(student_dim=8, teacher_dim=8), dtype=torch.float32, backend=backend, **told)
        with Watch() as watch:
            loss(**inputs | {"image_features": inputs["image_features"].requires_grad_()}, group_ids=ids).backward()
        assert watch.largest <= 4 * 256 * 8 * 2, name


def all_three(**keywords: Any) -> torch.nn.Module:
    options = {"contrastive": {"label_smoothing": 0.3}, "siglip": {"positive_weight": "one"}}
    weights = {"contrastive": 1.0, "icl": 2.0, "siglip": 0.5}
    return build("clip_kd", MIXED, weights=weights, options=options, **keywords)


@pytest.mark.slow
def test_compiled():
    loss, inputs = all_three(backend=CHUNKED), with_ids(MIXED.inputs())
    torch._dynamo.reset()
    found = run(torch.compile(loss, fullgraph=True, backend="aot_eager"), inputs)
    grads: dict[str, Tensor | None] = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), run(loss, inputs))


@pytest.mark.slow
def test_beside_kernels():
    kernels = "triton" if backends.available()["triton"] is None and not torch.cuda.is_available() else "chunked"
    inputs = with_ids(MIXED.with_(scale=5.0).inputs(torch.float32))
    losses = [all_three(dtype=torch.float32, backend=one) for one in (kernels, "dense")]
    assert_same(run(losses[0], inputs), run(losses[1], inputs), torch.float32)
