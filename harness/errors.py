"""Exceptions that end a command with a message instead of a traceback."""


class UserError(Exception):
    """Error that the user can fix: its message says what is wrong, where, what was expected and how to fix it."""


class Terminated(Exception):
    """The run was asked to stop, has saved a checkpoint, and can be resumed."""
