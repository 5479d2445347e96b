"""Command groups that import a command's module when the command runs, or when its own help is asked for.

Importing the whole relay takes five times the CPU that Typer takes. A group therefore lists the name, the place and
the first help line of each of its commands; `relay --help` shows that list and imports none of them.
"""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


class LazyCommand(TyperCommand):
    """The name and the help line of a command. `target` is `module:name` of a function or of a Typer app."""

    def __init__(self, name: str, *, target: str, help: str) -> None:  # noqa: A002  # Click's name
        super().__init__(name=name, help=help)
        self._target = target

    def load(self) -> Any:
        """Import the command and return it, with its arguments and options, as Typer builds it."""
        module, _, attribute = self._target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            group = get_group(found)
            group.name = self.name
            return group
        app = typer.Typer(add_completion=False)
        app.command(self.name)(found)
        return get_command(app)


class LazyGroup(TyperGroup):
    """A group of commands. A subclass names them: command name -> (target, first line of the help)."""

    entries: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (target, line) in self.entries.items():
            self.add_command(LazyCommand(name, target=target, help=line))

    def invoke(self, ctx: Any) -> Any:
        """Run a command. An error in its arguments says what to write, and not in the words of the library."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if not error.message and error.param is not None:  # an argument or an option is missing
                error.message = getattr(error.param, "help", None) or ""
            error.message = error.message.removeprefix("Value error, ").replace(
                "Input should be", "it must be"
            )
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` name, and import it. Help and completion of the group don't come here."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest
