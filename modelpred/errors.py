"""The error that every module raises for input it cannot use."""


class InvalidInput(ValueError):  # noqa: N818 - a state of the input, named as a user says it
    """What the user gave cannot be used; the message says expected, got and what to do."""
