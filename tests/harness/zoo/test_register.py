"""Inline model configs: whatever becomes of the folder they are written to, or of a fork, open_clip finds them."""

import shutil

import open_clip

from harness.zoo import register_config
from harness.zoo.register import _REGISTERED
from tests.harness import tiny
from tests.harness.data import forked


def folders() -> set:
    return {path.parent for path in _REGISTERED}


def test_a_config_is_found_after_its_folder_was_removed():
    register_config("test-register-first", tiny.STUDENT)
    for folder in folders():
        shutil.rmtree(folder, ignore_errors=True)
    register_config("test-register-second", tiny.STUDENT)
    for name in ("test-register-first", "test-register-second"):
        assert open_clip.get_model_config(name)["embed_dim"] == tiny.STUDENT["embed_dim"]


def register_another(connection) -> None:
    before = folders()
    register_config("test-register-forked", {**tiny.STUDENT, "embed_dim": 8})
    connection.send((folders() - before, open_clip.get_model_config("test-register-forked")["embed_dim"]))


def test_a_fork_writes_into_a_folder_of_its_own():
    register_config("test-register-forked", tiny.STUDENT)
    process, connection = forked.start(register_another)
    assert connection.poll(60)
    new, width = connection.recv()
    process.join()
    assert (len(new), width) == (1, 8)
    assert open_clip.get_model_config("test-register-forked")["embed_dim"] == tiny.STUDENT["embed_dim"]
