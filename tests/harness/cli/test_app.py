"""The command line as a user meets it: exit codes, sentences, and quick help."""

import errno
import subprocess
import sys
import types

import pytest

from harness.cli import main
from harness.cli.guard import explain
from harness.config import recipe_names
from harness.errors import Terminated, UserError


@pytest.fixture
def clipkd(monkeypatch, capsys):
    """Run the command in this process; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipkd", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def _initialization_failed() -> ImportError:
    """What an extension module makes of Ctrl-C while it loads."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module with the given functions in place of a heavy one."""

    def put(name: str, **functions: object) -> None:
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_python_m_harness_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "harness", "train", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: clipkd train" in done.stdout


def test_version(clipkd):
    import kdlosses

    assert clipkd("--version") == (0, f"clipkd {kdlosses.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [("tarin",), ("train",), ("train", "smoke", "--sett", "a=b"), ("eval", "x", "--device", "tpu")]
)
def test_wrong_usage_exits_with_2(clipkd, arguments):
    code, out, err = clipkd(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: clipkd" in err


def test_a_recipe_error_is_one_sentence_on_stderr(clipkd):
    code, out, err = clipkd("train", "smoke", "--set", "optim.lr=fast")
    assert (code, out) == (2, "")
    assert err == "error: --set optim.lr=fast: optim.lr must be a number, got 'fast'\n"


def test_train_passes_recipe_folder_and_command_on(clipkd, stand_in, tmp_path):
    calls = []

    def train(recipe, out, *, command, resume, overwrite):
        calls.append((recipe.optim.lr, out, command, resume, overwrite))
        return {"metrics": {"val": {"top1": 50.04}}}

    stand_in("harness.train", train=train)
    code, out, _ = clipkd("train", "smoke", "--set", "optim.lr=2e-3", "--out", str(tmp_path / "a b"))
    assert code == 0
    typed = f"clipkd train smoke --set optim.lr=2e-3 --out '{tmp_path}/a b'"
    assert calls == [(2e-3, tmp_path / "a b", typed, False, False)]
    assert "top1" in out
    assert "50.0" in out


def test_resume_and_overwrite_are_passed_on_and_exclude_each_other(clipkd, stand_in, tmp_path):
    asked = []
    stand_in("harness.train", train=lambda *_, resume, overwrite, **__: asked.append((resume, overwrite)) or {})
    assert clipkd("train", "smoke", "--out", str(tmp_path), "--resume") == (0, "", "")  # not the first process
    assert clipkd("train", "smoke", "--out", str(tmp_path), "--overwrite")[0] == 0
    assert asked == [(True, False), (False, True)]
    code, _, err = clipkd("train", "smoke", "--resume", "--overwrite")
    assert (code, err) == (2, "error: --resume and --overwrite contradict each other; give one of them\n")


def test_train_records_the_command_as_runs_writes_it(clipkd, stand_in, tmp_path):
    commands = []
    stand_in("harness.train", train=lambda *_, command, **__: commands.append(command) or {"metrics": {}})
    stand_in("harness.runs", command_line=lambda: "as runs writes it")
    assert clipkd("train", "smoke", "--out", str(tmp_path))[0] == 0
    assert commands == ["as runs writes it"]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("shard x.tar is missing"), 2, "error: shard x.tar is missing\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, "error: no space left on the disk for runs/a;"),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/a"),
            2,
            "error: no permission to read or write for runs/a",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/a"), 2, "error: no permission to read or write for /a"),
        (
            FileExistsError(errno.EEXIST, "File exists", "no/such/run"),
            2,
            "error: no/such/run is in the way; choose another folder or move it away\n",
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "runs/a"),
            2,
            "error: runs/a is a folder where a file is needed; choose another folder",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "runs/a/.tmp", None, "runs/a/export"),
            2,
            "error: runs/a/export is in the way;",
        ),
        (
            ModuleNotFoundError("No module named 'webdataset'", name="webdataset"),
            2,
            "pip install '.[harness]' in a checkout of kdlosses",
        ),
        (Terminated("stopped by SIGTERM and saved in runs/a"), 75, "stopped by SIGTERM and saved in runs/a\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (_initialization_failed(), 130, "interrupted"),
        (
            MemoryError("Unable to allocate 7.28 TiB for an array"),
            2,
            "error: out of memory: 7.28 TiB more were asked for",
        ),
        (Terminated("stopped by SIGTERM and saved in runs/a"), 75, "stopped by SIGTERM and saved in runs/a\n"),
    ],
)
def test_errors_that_a_user_can_mend(clipkd, stand_in, tmp_path, error, code, says):
    def train(*_, **__):
        raise error

    stand_in("harness.train", train=train)
    got, _, err = clipkd("train", "smoke", "--out", str(tmp_path))
    assert got == code
    assert says in err
    assert "Traceback" not in err


def test_a_bug_is_a_traceback(monkeypatch, stand_in, tmp_path):
    def train(*_, **__):
        raise ZeroDivisionError("ours")

    stand_in("harness.train", train=train)
    monkeypatch.setattr(sys, "argv", ["clipkd", "train", "smoke", "--out", str(tmp_path)])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x"),
        FileExistsError("ours"),
        ModuleNotFoundError(name="harness.nope"),
        ValueError("x"),
    ],
)
def test_bugs_have_no_sentence(error):
    assert explain(error) is None


@pytest.mark.parametrize("below", ["", "/run", "/deep/run"])
def test_a_file_where_a_folder_is_needed_is_named(clipkd, stand_in, tmp_path, below):
    (tmp_path / "file").touch()
    stand_in("harness.data.openmoji", build=lambda out, size: out.mkdir(parents=True))
    code, _, err = clipkd("data", "openmoji", "--out", f"{tmp_path}/file{below}")
    says = "is a file where a folder is needed; choose another folder or move it away"
    assert (code, err) == (2, f"error: {tmp_path}/file {says}\n")


def test_recipe_names_are_whole_at_80_columns(clipkd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = clipkd("recipes", "list")
    assert code == 0
    assert set(recipe_names()) <= set(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_recipes_list_and_show_and_keys(clipkd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "openmoji/clipkd" in clipkd("recipes", "list")[1]
    code, out, _ = clipkd("recipes", "show", "openmoji/clipkd", "--data-root", "there")
    assert code == 0
    assert "- there/openmoji/train-student" in out
    assert "data.crop_scale" in clipkd("recipes", "schema")[1]


def test_shown_recipe_can_be_saved_and_shown_again(clipkd, tmp_path):
    plain = clipkd("recipes", "show", "smoke", "--plain")[1]
    for name, shown in (("plain", plain), ("annotated", clipkd("recipes", "show", "smoke")[1])):
        (tmp_path / f"{name}.yaml").write_text(shown)
        assert clipkd("recipes", "show", str(tmp_path / f"{name}.yaml"), "--plain")[1] == plain


def test_data_openmoji(clipkd, stand_in, tmp_path):
    def build(out, size):
        return {"openmoji": "17.0.0", "size": size, "license": "CC BY-SA 4.0", "counts": {out.name: 7}}

    stand_in("harness.data.openmoji", build=build)
    code, out, _ = clipkd("data", "openmoji", "--out", str(tmp_path / "o"), "--size", "32")
    assert (code, out) == (0, f"{tmp_path}/o: OpenMoji 17.0.0, 32 pixels. CC BY-SA 4.0\n  o: 7 images\n")


def test_quickstart_passes_seeds_on(clipkd, stand_in, tmp_path):
    calls = []
    stand_in("harness.quickstart", run_quickstart=lambda *arguments: calls.append(arguments))
    assert clipkd("quickstart", "--out", str(tmp_path), "--data-root", "d", "--seed", "1", "--seed", "2")[0] == 0
    assert clipkd("quickstart")[0] == 0
    assert [(str(data), seeds) for _, data, seeds in calls] == [("d/openmoji", [1, 2]), ("data/openmoji", [0])]


def test_export_passes_everything_on(clipkd, stand_in, tmp_path):
    calls = []
    stand_in("harness.models", load_trained=lambda *spec: spec)
    stand_in("harness.export", export_model=lambda *model, fp16: calls.append((*model, fp16)))
    assert clipkd("export", "runs/x", "--out", str(tmp_path / "e"), "--fp16")[0] == 0
    assert clipkd("export", "ViT-B-16", "--pretrained", "openai", "--out", str(tmp_path / "e"))[0] == 0
    assert calls == [(("runs/x", None), tmp_path / "e", True), (("ViT-B-16", "openai"), tmp_path / "e", False)]
