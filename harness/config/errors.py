"""Error for an invalid recipe."""

from harness.errors import UserError


class RecipeError(UserError):
    """Invalid recipe; the message says where it is wrong, what was expected and what was found."""
