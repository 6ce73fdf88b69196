"""The exceptions a user sees."""


class UserError(Exception):
    """Something a user can mend: its message says what is wrong, where, what was expected and how to mend it."""


class Terminated(Exception):
    """The run was asked to stop, has saved, and can be resumed."""
