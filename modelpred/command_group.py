"""A group of commands that end with one line on stderr, not a traceback, where the input or the disk is at fault."""

import sys
from typing import Any

from typer.core import TyperGroup

from modelpred.errors import InvalidInput, refusal


class CommandGroup(TyperGroup):
    """Commands that may raise InvalidInput, or the errors of a disk that refuses to write."""

    # Any: the context is of typer's own copy of click, or of click in older versions.
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command; the errors of its input and of the disk end the process with one line."""
        try:
            return super().invoke(ctx)
        except InvalidInput as error:
            sys.exit(str(error))
        except Exception as error:
            message = refusal(error)
            if message is None:
                raise
            sys.exit(message)
