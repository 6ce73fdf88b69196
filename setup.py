"""What pyproject.toml cannot say: the folder recipes/ is installed as the package harness.recipes."""

from setuptools import find_namespace_packages, setup

CODE = find_namespace_packages(include=["kdlosses*", "harness*"], exclude=["harness.bench.results*"])
RECIPES = ["harness.recipes", *(f"harness.recipes.{name}" for name in find_namespace_packages("recipes"))]

setup(
    # Folders of data count as packages: left out, setuptools warns that it may drop them one day.
    packages=[*CODE, *RECIPES],
    package_dir={"harness.recipes": "recipes"},
)
