"""Read a recipe: file, inherited files, overrides, variables of paths, and the schema, in this order."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.config import explain, yamltext
from harness.config.effects import TOLERATED, idle_keys
from harness.config.errors import RecipeError
from harness.config.overrides import apply_override
from harness.config.recipe import PathsConfig, Recipe
from harness.config.shipped import find_recipe
from harness.config.yamltext import Tree
from harness.errors import UserError
from harness.paths import expand_home

logger = logging.getLogger(__name__)

RUN_RECIPE = "recipe.yaml"
VARIABLE = re.compile(r"\$\{([^}]*)\}")


def load_recipe(source: str | Path, overrides: Sequence[str] = (), data_root: str | Path | None = None) -> Recipe:
    """Load and check a recipe.

    Args:
        source: path of a YAML file, or the name of a shipped recipe such as "openmoji/clipkd".
        overrides: texts "optim.lr=2e-3"; the value is read as YAML. Later ones win.
        data_root: what ${data_root} stands for, instead of the recipe's paths.data_root.

    Raises:
        RecipeError: one sentence with the place, the key, what was expected and what was found.
    """
    return load_with_tree(source, overrides, data_root)[0]


def load_with_tree(
    source: str | Path, overrides: Sequence[str] = (), data_root: str | Path | None = None
) -> tuple[Recipe, Tree]:
    """As `load_recipe`, and what was written, with its places."""
    tree = _read_with_parents(find_recipe(source), seen=())
    for text in overrides:
        apply_override(tree, text)
    if data_root is not None:
        apply_override(tree, f"paths.data_root={yamltext.dump(str(data_root))}", option="--data-root")
    used = _substitute(tree)
    if data_root is not None and "data_root" not in used:
        raise RecipeError(f"--data-root has no effect: no path in {source} contains ${{data_root}}")
    try:
        recipe = Recipe.model_validate(tree.values)
    except ValidationError as error:
        raise explain.invalid(error, tree) from None
    for path, when in idle_keys(recipe):
        problem = explain.without_effect(path, when, tree)
        if path not in TOLERATED:
            raise problem
        logger.warning("%s", problem)
    return recipe, tree


def read_run_recipe(run: Path) -> Recipe:
    """The resolved recipe that a run folder holds; one of an older version may have keys without effect.

    Raises:
        RecipeError: it cannot be read, or is not a recipe of this version.
    """
    tree = _read(run / RUN_RECIPE)
    try:
        return Recipe.model_validate(tree.values)
    except ValidationError as error:
        raise explain.invalid(error, tree) from None


def parse_recipe(text: str, name: str) -> Recipe:
    """Read back what `dump_recipe` wrote.

    Args:
        text: the YAML.
        name: what to call it in errors.

    Raises:
        RecipeError: the text is not a recipe of this version.
    """
    try:
        tree = yamltext.parse(text, name)
        return Recipe.model_validate(tree.values)
    except yaml.YAMLError as error:
        raise explain.not_yaml(error, name) from None
    except ValidationError as error:
        raise explain.invalid(error, tree) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that loads to an equal recipe."""
    return yamltext.dump(recipe.model_dump(mode="json"))


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> Tree:
    """Read a file on top of those it inherits from; its own keys win."""
    if path.resolve() in seen:
        chain = " -> ".join(_shown(item) for item in (*seen, path.resolve()))
        raise RecipeError(f"{_shown(path)} inherits from itself: {chain}")
    own = _read(path)
    parents = own.values.pop("inherits", [])
    place = own.mark(("inherits",))
    parents = [parents] if isinstance(parents, str) else parents
    if not (isinstance(parents, list) and all(isinstance(parent, str) and parent for parent in parents)):
        raise RecipeError(f"{place}: inherits must be the path or name of a recipe, or a list of them, got {parents!r}")
    merged = Tree({})
    for parent in parents:
        try:
            file = find_recipe(parent, beside=path.parent)
        except RecipeError as error:
            raise RecipeError(f"{place}: inherits: {error}") from None
        merged = _laid_over(merged, _read_with_parents(file, (*seen, path.resolve())))
    return _laid_over(merged, own)


def _laid_over(base: Tree, own: Tree) -> Tree:
    return Tree(_merge(base.values, own.values), base.marks | own.marks)


def _read(path: Path) -> Tree:
    name = _shown(path)
    try:
        tree = yamltext.parse(path.read_bytes(), name)
    except yaml.YAMLError as error:
        raise explain.not_yaml(error, name) from None
    except OSError as error:
        raise RecipeError(f"{name} cannot be read: {error.strerror}") from None
    if tree.values is None:
        raise RecipeError(f"{name} is empty; a recipe needs at least name, data, student and train")
    if not isinstance(tree.values, dict):
        raise RecipeError(f"{name} must hold a mapping (key: value lines), got a {type(tree.values).__name__}")
    return tree


def _shown(path: Path) -> str:
    """Relative to the working folder when inside it."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _merge(base: Any, own: Any) -> Any:
    """Deep-merge mappings; anything else of `own` replaces what `base` has."""
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    return base | {key: _merge(base[key], value) if key in base else value for key, value in own.items()}


def _expanded(text: str) -> str:
    try:
        return expand_home(text)
    except UserError:  # the schema's to refuse, which knows the place
        return text


def _substitute(tree: Tree) -> set[str]:
    """Replace ${data_root} and its like in every text outside `paths`; tells which of them there were."""
    written = tree.values.get("paths")
    written = written if isinstance(written, dict) else {}
    variables = PathsConfig().model_dump()
    # A value of a wrong type is the schema's to refuse.
    variables |= {name: _expanded(written[name]) for name in variables if isinstance(written.get(name), str)}
    found: set[str] = set()

    def fill(value: Any, path: yamltext.Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        names = VARIABLE.findall(value)
        found.update(names)
        unknown = next((name for name in names if name not in variables), None)
        if unknown is not None:
            known = ", ".join(f"${{{name}}}" for name in variables)
            raise RecipeError(f"{tree.mark(path)}: unknown variable ${{{unknown}}}; there are {known}")
        return VARIABLE.sub(lambda match: variables[match[1]], value)

    tree.values = {key: value if key == "paths" else fill(value, (str(key),)) for key, value in tree.values.items()}
    return found
