"""The one exception a user sees."""


class UserError(Exception):
    """Something a user can mend: its message says what is wrong, where, what was expected and how to mend it."""
