"""What can go wrong, with the program's exit codes (sysexits.h)."""

from __future__ import annotations

# Set by type checkers: `typing` takes longer to import than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Type


class RotatorError(Exception):
    """There is no live credential, and why."""

    #: The exit code of the program.
    code: int = 69
    #: What went wrong.
    message: str
    #: What to do next, if the program knows.
    hint: Optional[str]

    def __init__(self, message: str, *, code: Optional[int] = None, hint: Optional[str] = None) -> None:
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        super().__init__(message if hint is None else f"{message} (hint: {hint})")

    def again(self) -> RotatorError:
        """The same for another caller: each has a traceback of its own."""
        return type(self)(self.message, code=self.code, hint=self.hint)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), self.message, self.code, self.hint)


class TemporaryError(RotatorError):
    """Another try may help: the workspace or the network does not answer (69, 75)."""

    code = 75


class SignInError(RotatorError):
    """The workspace refuses the sign-in, or a person has to log in (77)."""

    code = 77


class ConfigurationError(RotatorError):
    """The configuration or the arguments are wrong, such as a name that does not exist (64, 78)."""

    code = 78


class NotInstalled(RotatorError):
    """The program is missing that comes with this package."""

    code = 69


_KINDS: Dict[int, Type[RotatorError]] = {
    64: ConfigurationError,
    69: TemporaryError,
    75: TemporaryError,
    77: SignInError,
    78: ConfigurationError,
}


def error_of(code: int, message: str, hint: Optional[str] = None) -> RotatorError:
    """The exception for an exit code."""
    return _KINDS.get(code, RotatorError)(message, code=code, hint=hint)


def _rebuilt(kind: Type[RotatorError], message: str, code: int, hint: Optional[str]) -> RotatorError:
    return kind(message, code=code, hint=hint)
