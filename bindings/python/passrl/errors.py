"""Errors: one tree under `passrl.Error`, each with the library's status and sentence."""
from __future__ import annotations

from typing import Any, NoReturn

ERR_NULL, ERR_VALUE, ERR_STRUCT_SIZE, ERR_UNKNOWN_NAME, ERR_CONFLICT, ERR_NOT_YET = -100, -101, -102, -103, -104, -105
ERR_SHAPE, ERR_DTYPE, ERR_LAYOUT, ERR_OVERLAP, ERR_LIMIT, ERR_OFFSETS, ERR_WORKSPACE, ERR_FINGERPRINT = range(-200, -208, -1)
ERR_NO_DEVICE, ERR_DEVICE, ERR_FORK, ERR_RESOURCE, ERR_DRIVER = range(-300, -305, -1)
ERR_DATA, ERR_COLLECTIVE, ERR_INTERNAL = -400, -500, -900


class Error(Exception):
    """What the library, or this package before it, refused.

    Attributes: `status`, the negative number of the C header (`PASSRL_ERR_*`); `str(error)`, the sentence: function, argument,
    both numbers, the mend. Nothing was written. Findings in the data are no errors: see `Shaped.status`.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    def __reduce__(self) -> tuple[type[Error], tuple[int, str]]:
        return type(self), (self.status, str(self))


class ArgumentError(Error, ValueError):
    """A value, name or combination of arguments (status -100 to -199)."""


class UnknownNameError(ArgumentError):
    """A configuration key or preset that does not exist; the sentence has the nearest names (-103)."""


class NotServedError(Error, NotImplementedError):
    """Declared, but not served by this version (-105)."""


class ShapeError(Error, ValueError):
    """Shapes, types, strides, offsets, limits, buffers (-200 to -299)."""


class DtypeError(ShapeError, TypeError):
    """A data type that the argument does not accept (-201)."""


class DeviceError(Error, RuntimeError):
    """Devices, streams, threads, memory (-300 to -399)."""


class DataError(Error, ValueError):
    """`strict = true` and the data has findings (-400)."""


class CollectiveError(Error, RuntimeError):
    """A rank failed or disagreed (-500)."""


class InternalError(Error, RuntimeError):
    """A bug in the library (-900)."""


class LibraryError(Error, ImportError):
    """libpassrl could not be loaded, or is of another version."""


class FindingWarning(UserWarning):
    """A primitive met findings in the data (a NaN or an infinity): the rollout or group that has it is 0, the others are as asked.

    Attributes: `status`, the positive number of the C header (`PASSRL_FINDING_*`); `str(warning)`, the library's sentence. To have an
    exception instead: `warnings.simplefilter("error", passrl.FindingWarning)`.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    def __reduce__(self) -> tuple[type[FindingWarning], tuple[int, str]]:
        return type(self), (self.status, str(self))


_EXACT: dict[int, type[Error]] = {
    ERR_UNKNOWN_NAME: UnknownNameError,
    ERR_NOT_YET: NotServedError,
    ERR_DTYPE: DtypeError,
    ERR_DATA: DataError,
    ERR_COLLECTIVE: CollectiveError,
}
_BLOCKS: dict[int, type[Error]] = {1: ArgumentError, 2: ShapeError, 3: DeviceError, 4: DataError, 5: CollectiveError, 9: InternalError}


def error(status: int, sentence: str) -> Error:
    """The exception of a negative status."""
    kind = _EXACT.get(status) or _BLOCKS.get(-status // 100, Error)
    return kind(status, sentence)


def refuse(status: int, sentence: str) -> NoReturn:
    """Raises the exception of a status."""
    raise error(status, sentence) from None


def integer(value: Any, name: str, bits: int = 64) -> int:
    """An argument that is a whole number of so many bits; text and fractions are refused, not rounded, and what is larger is not cut."""
    try:
        found = int(value)
        whole = not isinstance(value, (str, bytes)) and bool(found == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        refuse(ERR_VALUE, f"passrl: {name} is {value!r}; it must be a whole number")
    most = 2 ** (bits - 1)
    if not -most <= found < most:
        refuse(ERR_VALUE, f"passrl: {name} is {found}; it must be a whole number of {bits} bits, {most - 1} at most")
    return found


def number(value: Any, name: str) -> float:
    """An argument that is a number; text is refused, not read."""
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    refuse(ERR_VALUE, f"passrl: {name} is {value!r}; it must be a number")
