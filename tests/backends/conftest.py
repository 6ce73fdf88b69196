"""Triton's own tests are left out where there is no Triton; on Linux there always is (`test_subjects`)."""

from __future__ import annotations

from kdlosses import backends

collect_ignore_glob = [] if backends.available()["triton"] is None else ["test_triton_*.py"]
