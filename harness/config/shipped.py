"""The recipes that come with the package, and how a recipe's name or path becomes a file."""

import difflib
from pathlib import Path

from harness.config.errors import RecipeError
from harness.paths import expand_home

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = (".yaml", ".yml")
NO_RUNS = ("parts", "study")


def recipes_dir() -> Path:
    """Folder of the shipped recipes: inside an installed package, beside the package in a source checkout."""
    installed = PACKAGE / "recipes"
    return installed if installed.is_dir() else PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of all shipped recipes, such as openmoji/clipkd.

    A base.yaml, and what is in a folder `parts`, is for others to inherit, not a run; `study` holds what
    `clipkd study` reads.
    """
    root = recipes_dir()
    files = [path for path in root.rglob("*.yaml") if path.stem != "base" and path.parent.name not in NO_RUNS]
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in files)


def find_recipe(source: str | Path, beside: Path | None = None) -> Path:
    """Resolve a path (relative to the folder `beside`, else to the working folder) or the name of a shipped recipe."""
    path = (beside or Path()) / (expand_home(source) if isinstance(source, str) else source)
    if path.is_file():
        return path
    shipped = recipes_dir() / f"{str(source).removesuffix('.yaml')}.yaml"
    if shipped.is_file():
        return shipped
    if path.is_dir():
        raise RecipeError(f"{path} is a folder; a recipe is a YAML file{_inside(path)}")
    raise RecipeError(
        f"no recipe {source}: it is neither a file nor a shipped recipe; {_near(str(source), path.parent)}"
    )


def _inside(folder: Path) -> str:
    return f", such as {folder / 'recipe.yaml'}" if (folder / "recipe.yaml").is_file() else ""


def _near(source: str, folder: Path) -> str:
    """Say which file beside it or which shipped recipe was probably meant."""
    files = [path for path in folder.glob("*") if path.suffix in SUFFIXES] if folder.is_dir() else []
    candidates = {path.stem: str(path) for path in files} | {name.split("/")[-1]: name for name in recipe_names()}
    candidates |= {str(path): str(path) for path in files} | {name: name for name in recipe_names()}
    wanted = source.removesuffix(".yaml").removeprefix("recipes/")
    near = difflib.get_close_matches(wanted, candidates, n=1) or difflib.get_close_matches(
        Path(wanted).stem, candidates, n=1
    )
    if near:
        return f"did you mean {candidates[near[0]]}?"
    return f"shipped recipes: {', '.join(recipe_names())}"
