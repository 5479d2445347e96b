"""Command groups that import a command's module when the command runs, or when its own help is asked for.

Importing the whole relay takes five times the CPU that Typer takes. A group therefore lists the name, the place and
the first help line of each of its commands; `relay --help` shows that list and imports none of them.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin

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
        app.command(self.name, cls=_Command)(found)
        return get_command(app)


class _Command(TyperCommand):
    """A command that takes plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, and the option for the help."""
        return _plain(super().get_params(ctx))


def _plain(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter._runtime_param is None:  # noqa: SLF001  # Typer has no other place for it
            parameter._runtime_param = _Values()  # noqa: SLF001  # as above
    return parameters


class _Values:
    """Takes the values of a parameter that need no conversion as they are: texts, defaults, and paths.

    Typer converts every value with a library whose import takes longer than the answers of most commands. It still
    converts all others, and words the errors.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value as the command takes it."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        kind = param.type_descriptor.annotation
        if get_origin(kind) is list and isinstance(value, tuple | list):
            (one,) = get_args(kind)
            if all(_is_plain(one, item) for item in value):
                return [_converted(one, item) for item in value]
        elif _is_plain(kind, value):
            return _converted(kind, value)
        param._runtime_param = None  # noqa: SLF001  # Typer makes its own
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _is_plain(kind: Any, value: Any) -> bool:
    """Tell whether a value is one of a kind without a look at anything else."""
    if kind is Path and isinstance(value, str):
        return os.access(value, os.R_OK) or not os.path.lexists(value)
    return value in get_args(kind) if get_origin(kind) is Literal else type(value) is kind


def _converted(kind: Any, value: Any) -> Any:
    return Path(value) if kind is Path else value


class LazyGroup(TyperGroup):
    """A group of commands. A subclass names them: command name -> (target, first line of the help)."""

    entries: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (target, line) in self.entries.items():
            self.add_command(LazyCommand(name, target=target, help=line))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, and the option for the help. Plain values are taken as they are."""
        return _plain(super().get_params(ctx))

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
