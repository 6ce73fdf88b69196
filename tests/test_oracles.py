"""The oracles themselves, against outputs of the released code: a wrong oracle would bless a wrong loss."""

from __future__ import annotations

import pytest
import torch

from tests.oracles import ORACLES, World
from tests.problems import STUDENT, TEACHER

TERMS = {
    "task": "contrastive",
    "ckd": "crd",
    "fd": "fd",
    "gd": "gd",
    "icl": "icl",
    "afd": "afd",
    "cross_kd": "cross_kd",
}


# Terms of CLIP-RD's code, which gives the parts of its VRD one by one.
CLIP_RD = {"hrd": "crd", "xrd": "xrd", "vrd": "vrd"}


@pytest.mark.parametrize(
    ("case", "term"),
    [
        *(("small_batch", term) for term in TERMS),
        *(("other_dim", term) for term in TERMS if term != "afd"),
        *(("clip_rd_released", term) for term in CLIP_RD),
    ],
)
def test_released_oracle_reproduces_the_released_code(term, case, read_golden):
    golden = whole_vrd(read_golden(case))
    leaves = {key: golden[key].clone().requires_grad_() for key in STUDENT}
    params = {k.removeprefix("param."): v.clone().requires_grad_() for k, v in golden.items() if k.startswith("param.")}
    world = World(*leaves.values(), *(golden[key] for key in TEACHER), params=params, variant="released")
    value = ORACLES[(TERMS | CLIP_RD)[term]](world)
    value.backward()

    torch.testing.assert_close(value.detach(), golden[f"value.{term}"], rtol=1e-9, atol=1e-15)
    holders = leaves | {f"param.{key}": p for key, p in params.items()}
    grads = {key.removeprefix(f"grad.{term}."): v for key, v in golden.items() if key.startswith(f"grad.{term}.")}
    assert grads
    for key, wanted in grads.items():
        torch.testing.assert_close(holders[key].grad, wanted, rtol=1e-9, atol=1e-15)


def whole_vrd(golden):
    """With the parts of CLIP-RD's VRD added up, where there are any."""
    parts = {key: value for key, value in golden.items() if ".vrd_" in key}
    total: dict[str, torch.Tensor] = {}
    for key, value in parts.items():
        kind, _, name = key.split(".", 2) if key.count(".") > 1 else (*key.split("."), "")
        whole = f"{kind}.vrd.{name}".rstrip(".")
        total[whole] = total.get(whole, 0) + value
    return golden | total
