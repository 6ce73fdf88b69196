"""What is wrong with a recipe, in one sentence."""

from harness.errors import UserError


class RecipeError(UserError):
    """A recipe that cannot be used: says where it is wrong, what was expected and what was found."""
