"""The plain loops of the example and the README train the same under autocast, GradScaler, torch.compile and DDP."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import kdlosses
from tests.integrations import plain_loop_ranks as ranks
from tests.integrations import readme_loop
from tests.integrations.scripts import EXAMPLES, ROOT, blocks, example, start

pytestmark = pytest.mark.filterwarnings("error::kdlosses.UntrainedParametersWarning")
PAGE = "docs/integrations/plain_loop.md"
script = example("plain_loop")
# How far a tensor may be from another, by the length of their difference.
FLOAT32, HALF = 1e-4, 0.03


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run("--amp", "bf16")`: the checkpoint that the example leaves on this process."""
    folder, done = tmp_path_factory.mktemp("alone"), {}

    def run(*flags: str) -> dict:
        if flags not in done:
            file = folder / f"{len(done)}.pt"
            script.main(["--steps", str(ranks.STEPS), "--checkpoint", str(file), *flags])
            done[flags] = torch.load(file, weights_only=True)
        return done[flags]

    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of what two processes of torchrun leave."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", "2"]
    told = start([*torchrun, "-m", ranks.__name__, folder], ROOT)
    assert told.count(f"after {ranks.STEPS} steps:") == len(ranks.RUNS), told  # one process speaks
    return folder


def values(checkpoint: dict) -> dict[str, Tensor]:
    """Parameters of student and loss, and AdamW's moments, which show a gradient's scale where its steps do not."""
    found = {f"{part} {name}": value for part in ("student", "loss") for name, value in checkpoint[part].items()}
    for number, state in checkpoint["optimizer"]["state"].items():
        found |= {f"{key} {number}": state[key] for key in ("exp_avg", "exp_avg_sq")}
    return found


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 0.0) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        distance = ((found[name] - value).norm() / value.norm()).item()
        assert distance <= tolerance, f"{name}: {distance:.2g}"


class TestTheExample:
    def test_is_ten_lines(self):
        code = (EXAMPLES / "plain_loop.py").read_text()
        loop = code[code.index("    for images, texts in pairs") : code.index("    save(saved")]
        assert len([line for line in loop.splitlines() if line.strip()]) == 10

    def test_trains_every_parameter_of_student_and_loss(self, run):
        torch.manual_seed(0)
        student, _ = script.ToyCLIP(16), script.ToyCLIP(24)
        weights = {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}
        loss = kdlosses.CLIPKDLoss(weights, student_dim=16, teacher_dim=24)
        for part, module in {"student": student, "loss": loss}.items():
            for name, before in module.state_dict().items():
                assert not torch.equal(before, run()[part][name]), name

    def test_reduces_the_losses(self):
        few, many = (sum(script.main(["--steps", steps]).values()) for steps in ("1", "20"))
        assert many < 0.8 * few

    @pytest.mark.slow
    def test_compiled_is_the_same_in_one_graph(self, run):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        found = run("--compile", "aot_eager")
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        assert_equal(values(found), values(run()), FLOAT32)

    def test_autocast_is_near(self, run):
        assert_equal(values(run("--amp", "bf16")), values(run()), HALF)
        assert not torch.equal(run("--amp", "bf16")["student"]["image.0.weight"], run()["student"]["image.0.weight"])

    def test_grad_scaler_is_near(self, run):
        found = run("--amp", "fp16")
        assert found["scaler"]["scale"] == 1024 and found["scaler"]["_growth_tracker"] == ranks.STEPS  # none left out
        assert_equal(values(found), values(run()), HALF)

    def test_clipping_counts_the_losss_parameters(self, tmp_path):
        script.main(["--steps", "1", "--clip", "0.01", "--checkpoint", str(tmp_path / "run.pt")])
        found = values(torch.load(tmp_path / "run.pt", weights_only=True))
        moments = torch.cat([value.flatten() for name, value in found.items() if name.startswith("exp_avg ")])
        assert moments.norm().item() == pytest.approx(0.01 * (1 - 0.9), rel=1e-3)  # AdamW's after one step

    @pytest.mark.parametrize("flags", [(), ("--amp", "fp16")])
    def test_resuming_is_exact(self, run, tmp_path, flags):
        file = tmp_path / "run.pt"
        script.main(["--steps", "3", "--checkpoint", str(file), *flags])
        assert torch.load(file, weights_only=True)["step"] == 3
        script.main(["--steps", str(ranks.STEPS), "--checkpoint", str(file), *flags])
        found = torch.load(file, weights_only=True)
        assert found["scaler"] == run(*flags)["scaler"]
        assert_equal(values(found), values(run(*flags)))

    def test_a_finished_run_is_left_alone(self, tmp_path):
        file = tmp_path / "run.pt"
        script.main(["--steps", "2", "--checkpoint", str(file)])
        before = values(torch.load(file, weights_only=True))
        assert script.main(["--steps", "2", "--checkpoint", str(file)]) == {}
        assert_equal(values(torch.load(file, weights_only=True)), before)

    def test_scales_stay_within_their_bound(self, run, tmp_path):
        saved, file = run(), tmp_path / "run.pt"
        torch.save(saved | {"loss": saved["loss"] | {"cross_logit_scale": torch.tensor(9.0)}}, file)
        script.main(["--steps", str(ranks.STEPS + 1), "--checkpoint", str(file)])
        assert torch.load(file, weights_only=True)["loss"]["cross_logit_scale"] <= math.log(100)


@pytest.mark.distributed
@pytest.mark.slow
class TestTwoProcesses:
    @pytest.mark.parametrize(
        ("name", "alone", "tolerance"),
        [
            ("unclipped", ("--clip", "1000"), FLOAT32),
            ("clipped", (), FLOAT32),
            ("bf16", ("--amp", "bf16"), HALF),
            ("fp16", ("--amp", "fp16"), HALF),
            ("bf16 compiled", ("--amp", "bf16"), HALF),
        ],
    )
    def test_train_what_one_trains_with_the_whole_batch(self, run, two, name, alone, tolerance):
        assert_equal(values(torch.load(two / f"{name}.pt", weights_only=True)), values(run(*alone)), tolerance)

    @pytest.mark.parametrize("name", ranks.README)
    def test_of_the_readmes_loop_too(self, two, name):
        first, second = (torch.load(two / f"readme-{rank}.pt", weights_only=True)[name] for rank in range(2))
        assert_equal(first, second)
        tolerance = HALF if "autocast" in name else FLOAT32
        assert_equal(first, readme_loop.run(*(ranks.README[name][1:])), tolerance)


class TestTheReadme:
    @pytest.fixture
    def plain(self):
        found = readme_loop.run()
        torch.manual_seed(0)
        return found

    @pytest.mark.parametrize("changes", [("scaler",), pytest.param(("scaler", "compile"), marks=pytest.mark.slow)])
    def test_trains_the_same_with(self, plain, changes):
        assert_equal(readme_loop.run(*changes), plain, FLOAT32)

    @pytest.mark.parametrize("changes", [("autocast",), ("autocast", "scaler")])
    def test_trains_nearly_the_same_with(self, plain, changes):
        assert_equal(readme_loop.run(*changes), plain, HALF)


def test_the_docs_way_in_parts_gives_the_gradients_of_the_whole_batch():
    (block,) = blocks(PAGE)
    exec(block, names := {"torch": torch})
    student, teacher, loss = script.ToyCLIP(16), script.ToyCLIP(24), kdlosses.CLIPKDLoss(student_dim=16, teacher_dim=24)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters)
    ((images, texts),) = script.pairs(range(1), 10, torch.device("cpu"))
    taught = [value.detach() for value in teacher(images, texts)]
    value = loss(*student(images, texts), *taught)
    value.backward()
    wanted = [p.grad.clone() for p in parameters]
    optimizer.zero_grad()
    found = names["backward_in_parts"](student, loss, images, texts, taught, 4)
    torch.testing.assert_close(found, value.detach())
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
