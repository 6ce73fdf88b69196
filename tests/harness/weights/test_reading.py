"""Checkpoints in every layout that people have are read; what is none, or would run code, gets one clear sentence."""

import argparse
import os
import pickle
import shlex
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.checkpoint import save_checkpoint
from harness.errors import UserError
from harness.weights import read_checkpoint
from tests.harness.weights import damage

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(2.5)}


def same(path, weights=WEIGHTS) -> bool:
    state = read_checkpoint(path).state
    return list(state) == list(weights) and all(torch.equal(state[name], value) for name, value in weights.items())


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("nested", [True, False])
def test_bare_or_nested_wrapped_or_not(tmp_path, nested, prefix):
    state = prefixed(prefix)
    content = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 1.0}} if nested else state
    checkpoint = read_checkpoint(saved(tmp_path / "c.pt", content))
    assert list(checkpoint.state) == list(WEIGHTS)
    assert (checkpoint.epoch, checkpoint.run) == ((3, "run") if nested else (None, None))


@pytest.mark.parametrize("word", ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_words_of_wrappers_mean_nothing_wherever_they_stand(tmp_path, word):
    """Blocks are compiled, sharded and checkpointed one by one, so some names have a word in them and others none."""
    weights = {f"blocks.0.{word}.a": torch.ones(1), f"{word}.{word}.b": torch.ones(1), "c": torch.ones(1)}
    assert list(read_checkpoint(saved(tmp_path / "c.pt", weights)).state) == ["blocks.0.a", "b", "c"]
    assert list(read_checkpoint(saved(tmp_path / "d.pt", {f"x.{word}": torch.ones(1)})).state) == [f"x.{word}"]


def test_two_names_that_become_one_are_refused(tmp_path):
    path = saved(tmp_path / "c.pt", {"a": torch.ones(1), "module.a": torch.zeros(1)})
    with pytest.raises(UserError, match=r"holds a twice, once as module\.a; expected a state dict of one model"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "odd.name"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name)
    assert same(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_torchs_old_and_new_format(tmp_path, zipped):
    assert same(saved(tmp_path / "c.bin", WEIGHTS, _use_new_zipfile_serialization=zipped))


def numpy_things():
    return {"lr": np.float64(1e-3), "step": np.int64(7), "flag": np.bool_(True), "random": np.random.get_state()}


@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_scalars_and_arrays_beside_the_weights_are_passed_over(tmp_path, zipped):
    content = {"state_dict": WEIGHTS, "optimizer": {"param_groups": [numpy_things()]}}
    path = saved(tmp_path / "c.pt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        torch.load(path, weights_only=True)
    assert same(path)
    with pytest.raises(Exception, match=r"(?i)weights.only"):  # nothing stays allowed afterwards
        torch.load(path, weights_only=True)


def test_what_numpy_1_wrote_is_read_too(tmp_path):
    path = saved(tmp_path / "c.pt", {"state_dict": WEIGHTS, "x": numpy_things()}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(path)


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_not_opened(tmp_path, zipped):
    content = {"state_dict": WEIGHTS, "extra": Bomb(f"touch {tmp_path / 'ran'}")}
    path = saved(tmp_path / "c.pt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"names posix\.system, which could run code.*weights_only=False") as refused:
        read_checkpoint(path)
    assert "numpy" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_other_objects_are_named(tmp_path):
    content = {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1), "model": torch.nn.Linear(1, 1)}
    with pytest.raises(UserError, match=r"argparse\.Namespace, torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(saved(tmp_path / "c.pt", content))


def test_the_first_object_is_named_where_torch_cannot_list_all(tmp_path):
    content = {"args": argparse.Namespace(lr=1), "later": b"bytes"}
    with pytest.raises(UserError, match=r"it names argparse\.Namespace, which"):
        read_checkpoint(saved(tmp_path / "c.pt", content, pickle_protocol=3))


@pytest.mark.parametrize("zipped", [True, False])
def test_another_pickle_protocol_is_said(tmp_path, zipped):
    path = saved(tmp_path / "c.pt", WEIGHTS, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"a pickle protocol that torch's safe loader does not read.*python -c"):
        read_checkpoint(path)


class Whole(torch.nn.Module):
    def state_dict(self):
        return WEIGHTS


@pytest.mark.parametrize("content", [{"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1)}, Whole()])
def test_the_way_on_that_a_refusal_names_works_whatever_the_file_is_called(tmp_path, monkeypatch, content):
    path = saved(tmp_path / 'it\'s "mine", $(touch ran).pt', content)
    with pytest.raises(UserError) as refused:
        read_checkpoint(path)
    monkeypatch.chdir(tmp_path)
    *_, python, option, code = shlex.split("python -c" + str(refused.value).partition("python -c")[2])
    assert (python, option) == ("python", "-c")
    exec(code)
    assert same(tmp_path / "weights.pt")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_said_to_be_incomplete(tmp_path, zipped, share):
    weights = {name: torch.randn(50, 50) for name in "abcd"}
    content = saved(tmp_path / "c.pt", weights, _use_new_zipfile_serialization=zipped).read_bytes()
    (tmp_path / "c.pt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"c\.pt cannot be read .*incomplete or damaged"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["latest.pt", "step-0000003.pt"])
def test_of_a_runs_checkpoints_the_whole_one_before_is_offered(tmp_path, name):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"step": step, "state_dict": {"w": torch.randn(30, 30)}}, step, keep=3)
    damage.flip_largest_record(tmp_path / "step-0000002.pt")
    assert read_checkpoint(tmp_path / name).step == 3
    record = damage.flip_largest_record(tmp_path / "step-0000003.pt")
    offer = r"take the checkpoint before it, .*step-0000001\.pt, which is whole"
    with pytest.raises(
        UserError, match=rf"{name} is damaged: its record {record} does not match its checksum; {offer}"
    ):
        read_checkpoint(tmp_path / name)


def test_a_damaged_file_that_is_no_checkpoint_of_a_run(tmp_path):
    save_checkpoint(tmp_path, {"step": 1, "state_dict": WEIGHTS}, 1, keep=3)
    damage.flip_largest_record(saved(tmp_path / "weights.pt", {"w": torch.randn(30, 30)}))
    with pytest.raises(UserError, match=r"does not match its checksum; copy or download it again"):
        read_checkpoint(tmp_path / "weights.pt")


def test_truncated_safetensors_are_said_to_be_incomplete(tmp_path):
    save_file({"a": torch.randn(50, 50)}, tmp_path / "c.safetensors")
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match="incomplete or damaged"):
        read_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>Not found</html>", "is not a checkpoint: expected a safetensors file"),
        (pickle.dumps({"a": 1}), "is a pickle, but not one of torch.save: expected"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a git-lfs pointer"),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path, content, message):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("member", "message"),
    [("model/constants.pkl", "is a TorchScript program.*openai"), ("word/document.xml", "not one that torch.save")],
)
def test_other_archives_are_said(tmp_path, member, message):
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr(member, "")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights: expected names and tensors, got an empty dict"),
        ([torch.ones(1)], "got a list"),
        ({"model": WEIGHTS, "epoch": 3}, r"model, epoch \(2 of 2 entries\) are not tensors"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, r"not a state dict: b \(1 of 2 entries\)"),
        ({"a": torch.ones(1), "b": np.ones(2)}, r"not a state dict: b \(1 of 2 entries\)"),
        ({"a": torch.ones(1), 1: torch.ones(1)}, r"not a state dict: 1 \(1 of 2 entries\) have no text as their name"),
        ({"a": torch.ones(2, 2).to_sparse()}, "sparse, quantized or without values"),
        ({"a": torch.ones(1, device="meta")}, "sparse, quantized or without values"),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(saved(tmp_path / "c.pt", content))


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    with pytest.raises(UserError, match=r"c\.pt is missing"):
        read_checkpoint(tmp_path / "c.pt")
    with pytest.raises(UserError, match="is a folder where a checkpoint file is needed"):
        read_checkpoint(tmp_path)
