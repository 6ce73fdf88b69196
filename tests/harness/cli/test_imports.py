"""What commands import: answers about recipes come without torch, and help without pydantic."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "kdlosses", "open_clip", "numpy", "transformers", "matplotlib", "PIL", "scipy", "pandas"}
COMMANDS = (
    ["--help"],
    ["train", "--help"],
    ["doctor", "--help"],
    ["recipes", "list"],
    ["recipes", "list", "--json"],
    ["recipes", "show", "paper/clipkd/rn101/resnet-18"],
    ["recipes", "show", "openmoji/clipkd", "--json"],
    ["recipes", "schema"],
    ["train", "no/such/recipe"],
    ["train", "smoke", "--set", "train.stepz=3"],
    ["train", "smoke", "--set", "loss.weights.crdd=1"],
    ["train", "smoke", "--set", "loss.backend=cuda"],
    ["train", "smoke", "--set", "student.config.zzz=1"],
    ["bench", "train", "smoke", "--set", "optim.lr=fast"],
    ["teacher", "precompute", "smoke", "--set", "optim.lr=fast"],
)

# One process for all: what one command imports stays, so that the first to import something heavy is named.
SCRIPT = """
import json, sys
from harness.cli import main

told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["clipkd", *arguments]
    try:
        main()
    except SystemExit as done:
        told.append([done.code or 0, sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(told), file=sys.stderr)
"""


def test_no_answer_about_a_recipe_imports_torch():
    command = [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    for arguments, (code, modules) in zip(COMMANDS, told, strict=True):
        heavy = HEAVY & set(modules)
        assert not heavy, f"clipkd {' '.join(arguments)} imports {heavy}"
        assert code == (0 if arguments[0] == "recipes" or "--help" in arguments else 2), arguments
        if arguments == ["--help"]:
            assert not {"pydantic", "yaml"} & set(modules), "help needs no schema"
    assert "error: --set train.stepz=3: unknown key train.stepz; did you mean train.steps?" in done.stderr


@pytest.mark.slow
def test_what_only_reads_data_imports_no_models_and_training_no_metrics():
    """torchvision, open_clip and scikit-learn, with all that they import, take seconds each."""
    script = "import sys, {}; print(sorted({{name.partition('.')[0] for name in sys.modules}}))"
    for module, unneeded in (
        ("harness.data.tools.check, harness.data.tools.convert", {"torchvision", "open_clip", "transformers", "timm"}),
        ("harness.train", {"sklearn", "scipy", "pandas", "matplotlib"}),
    ):
        command = [sys.executable, "-c", script.format(module)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not unneeded & set(json.loads(done.stdout.replace("'", '"'))), module
