#!/usr/bin/env bash
# The wheel in an environment that has torch and nothing else: every loss runs. Downloads torch (6 GB unpacked, minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy: setuptools builds in the folder, and takes into the wheel what earlier builds have left there.
mkdir "$work/source"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/source"

"$python" -m venv "$work/venv"
"$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" "$work/source"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$work"/kdlosses-*.whl
"$work/venv/bin/pip" list --disable-pip-version-check --format freeze

cp .ci/every_loss.py "$work/"
cd "$work" # away from the checkout, whose kdlosses would be found first
venv/bin/python every_loss.py
