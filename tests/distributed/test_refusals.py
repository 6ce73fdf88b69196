"""Processes that do not fit together all get one clear error, and go on with the next call: none of them hangs."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed
# The message on every rank; {others}: the ranks that are not the odd one.
EXPECTED = {
    "uneven": "the number of rows differs between processes: {rows} on {others}; {fewer} on rank 1;",
    "dtype": "text_features differs between processes: width 4, torch.float64 on {others}; width 4, torch.float32 on",
    "gradient": "image_features differs between processes: width 4, torch.float64 on {others}; "
    "width 4, torch.float64 with gradient on rank 1;",
    "masked": "masked_image_features differs between processes: none on {others}; width 4, torch.float64 on rank 1;",
    "width": "rank 0 of {size}: image_features has width 3 but text_features has width 4",
    "non-finite": "rank 1 of {size}: dist_text_features holds 1 non-finite values",
    "missing": "rank 0 of {size}: CLIPKDLoss needs the teacher's outputs; missing: dist_image_features",
    "type": "rank 1 of {size}: text_features must be a [B, D] tensor, got str",
    "scale": "rank 1 of {size}: logit_scale must be a number or a tensor of shape [] or [1], got object",
    "weights": "the loss differs between processes: CLIPKDLoss of {{'contrastive': 1.0, 'crd': 1.0}}",
    "ids": "group_ids differs between processes: given on rank 0; not given on rank",
    "options": "the set of options differs between processes: [('affinity', {{'student_scale': None, 'teacher_scale'",
    "frozen": "the loss differs between processes: ICLLoss of {{'icl': 1.0}}, variant paper, training ['cross_logit_sc",
    "grad-mode": "grad mode differs between processes: True on rank 0; False on rank",
    "teachers": "dist_image_features must be a list of 3 entries, one for each teacher, got 2",
    "parameters": "ICLLoss's parameter text_proj.weight on rank {last} differs from rank 0's; wrap the loss in "
    "DistributedDataParallel or call kdlosses.share_parameters(loss)",
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_rank_says_the_same(name, size, results):
    messages = results(size)[f"refusal-{name}"]
    others = "rank 0" if size == 2 else "ranks 0, 2, 3"
    words = EXPECTED[name].format(others=others, size=size, rows=8 // size, fewer=8 // size - 1, last=size - 1)
    assert set(messages) == {messages[0]}
    assert words in messages[0]


@pytest.mark.parametrize("name", ["uneven", "dtype", "masked"])
def test_what_to_do_is_said(name, results):
    assert "drop_last=True" in results(2)[f"refusal-{name}"][0]


def test_every_refusal_is_expected_here(results):
    jobs = {name.removeprefix("refusal-") for name in results(2) if name.startswith("refusal-")}
    assert jobs == set(EXPECTED)
