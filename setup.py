"""What pyproject.toml cannot say: the folder recipes/ is installed as the package harness.recipes."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["kdlosses*", "harness*"]), "harness.recipes"],
    package_dir={"harness.recipes": "recipes"},
)
