"""A console for tables with names that others wrote: control characters are shown, not obeyed."""

from typing import Any

import rich.console
from rich.text import Text

from engine.ground.progress import printable


class Console(rich.console.Console):
    """Rich's console."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a cell or sentence."""
        return super().render_str(printable(text), **options)
