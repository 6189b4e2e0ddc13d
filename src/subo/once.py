"""Attributes that are computed when they are first asked for."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

__all__ = ["once"]

T = TypeVar("T")

if TYPE_CHECKING:
    once = cached_property
else:

    class once(Generic[T]):  # noqa: N801
        """An attribute that is computed once for each object, as ``functools.cached_property``, but without a lock.

        Python 3.11 locks each of them while it is computed. torch cannot compile that, and two threads do not compute
        one draw.

        Example:
            >>> class Square:
            ...     def __init__(self, side):
            ...         self.side = side
            ...
            ...     @once
            ...     def area(self):
            ...         return self.side**2
            >>> Square(3).area
            9
        """

        def __init__(self, compute: Callable[[Any], T]):
            self._compute, self.__doc__ = compute, compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._compute(instance)
            return value
