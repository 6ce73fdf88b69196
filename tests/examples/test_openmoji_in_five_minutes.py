"""The tutorial: its script runs, and its page shows the script as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "examples" / "openmoji_in_five_minutes.py"
PAGE = ROOT / "docs" / "distil_in_five_minutes.md"


@pytest.mark.slow
def test_the_script_trains_both_students(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path / "openmoji"), "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "902 pairs to train on, 660 held out"
    assert [line.partition(":")[0] for line in lines[-3:]] == ["teacher", "student alone", "student with CLIP-KD"]
    terms = re.findall(r"(\w+) \d+\.\d{3}", next(line for line in lines if "crd" in line))
    assert terms == ["contrastive_loss", "crd_loss", "fd_loss", "icl_loss"]
    assert 40 < float(lines[-3].split()[1]) <= 100, "the shipped teacher knows most held-out emoji"


def test_the_page_shows_the_script_as_it_is() -> None:
    shown = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    script = SCRIPT.read_text(encoding="utf-8")
    assert len(shown) == 5 and all(block.strip() in script for block in shown)
    # Nothing of the four numbered steps is left out.
    steps = script[script.index("# --- 1.") :]
    rest = [line for line in steps.splitlines() if line and not line.startswith("# ---")]
    assert all(
        line in "\n".join(shown) for line in rest if line != 'if __name__ == "__main__":' and line != "    main()"
    )
