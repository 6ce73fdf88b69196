"""Which backends are tested: on Linux, torch's first platform, all of them."""

from __future__ import annotations

import platform

from tests.backends.subjects import KNOWN, USABLE, each_backend, subject


def test_linux_tests_every_backend():
    missing = {label: KNOWN[label] for label in set(KNOWN) - set(USABLE)}
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        assert missing == {}
    else:
        assert missing.keys() <= {"triton"}


@each_backend
def test_a_label_stands_for_its_backend(label):
    assert subject(label).backend.name == label.partition("-")[0]
