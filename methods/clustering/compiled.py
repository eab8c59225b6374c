"""How a function becomes machine code here: one decorator, so that all of them let other threads run."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, kept between processes; it holds no lock while it runs.

    A sum is taken in the order in which it is written.
    """
    return of(function)


def compiled_sum(function: Function) -> Function:
    """As `compiled`, for a function that is one long sum: the order is the compiler's, so that vectors are filled.

    It is the same order in every call on one kind of processor; another kind may differ in the last bit.
    """
    return of(function, fastmath={"reassoc"})


def compiled_numbers(function: Function) -> Function:
    """As `compiled`, where no number is NaN: minima and maxima may then be taken in any order."""
    return of(function, fastmath={"nnan", "nsz"})


def of(function: Function, **options: Any) -> Function:
    """The function compiled; what a type checker has put around it is taken off, since numba cannot see through it."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy", **options)(inspect.unwrap(function)))
