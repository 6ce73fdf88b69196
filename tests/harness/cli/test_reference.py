"""The generated pages: every command with every option, and every recipe key, each with its meaning."""

import re
import subprocess
import sys

import typer
from typer.testing import CliRunner

from harness.cli.app import app
from harness.cli.reference import command_reference, recipe_key_reference
from harness.config.keys import all_keys


def sections(page: str) -> dict[str, str]:
    return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))


def test_every_command_has_a_section_with_the_options_that_its_help_names():
    found = sections(command_reference())
    assert {"clipkd", "clipkd train", "clipkd recipes dry-run", "clipkd teacher precompute"} <= found.keys()
    for path, text in found.items():
        shown = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
        assert shown.exit_code == 0, path
        named = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
        options = set(re.findall(r"^│[* ]+(--[a-z-]+)", shown.output, re.MULTILINE))
        assert options - {"--help"} == named, path


def test_commands_are_all_there():
    def names(path: str, group: object) -> set[str]:
        inner = getattr(group, "commands", {})
        return {path} | {name for key, one in inner.items() for name in names(f"{path} {key}", one)}

    assert sections(command_reference()).keys() == names("clipkd", typer.main.get_command(app))


def test_a_section_shows_usage_type_default_and_meaning():
    text = sections(command_reference())["clipkd bench train"]
    assert "```\nclipkd bench train RECIPE [OPTIONS]\n```" in text
    assert "| `--set KEY=VALUE` |  | Change a key, such as optim.lr=2e-3. Can be repeated. |" in text
    assert r"| `--data live\|synthetic\|decode` | `live` |" in text
    assert "| `--steps INT` | `30` | " in text
    assert "| `--no-models` |  | " in command_reference()


def test_every_recipe_key_is_in_the_table_of_its_section():
    found = sections(recipe_key_reference())
    assert "| `inherits` |" in found["Top level"]
    for key in all_keys():
        section, _, leaf = key.name.rpartition(".")
        assert f"| `{leaf}` | " in found[f"`{section}`" if section else "Top level"], key.name
    assert "| `accum_freq` | `1` | " in found["`train`"]
    assert "| `batch_size` | `required` | " in found["`train`"]


def test_the_pages_are_made_without_torch():
    code = (
        "import sys; from harness.cli import reference\n"
        "assert len(reference.command_reference()) > 9000 < len(reference.recipe_key_reference())\n"
        "assert not {'torch', 'kdlosses'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
