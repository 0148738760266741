"""Empty stand-ins for packages that a framework imports beside the function that we call and that are not installed.

The finder goes to the END of `sys.meta_path`: what is installed is always the real thing. A stub module answers every name with a
stub class, so that decorators, base classes and type annotations of code that we never call can be evaluated. A stub never computes:
calling one gives another stub, and a stub that reaches arithmetic raises TypeError.
"""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any


class _StubType(type):
    """Class whose every attribute and subscript is a stub again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _stub(f"{cls.__name__}.{name}")

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        # `@ray.remote` over a class or function: what is decorated stays what it is. A real class that inherits from a stub is made as usual.
        if cls.__module__ == "stub" and len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]
        return super().__call__(*args, **kwargs)

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return Any

    def __ror__(cls, other: Any) -> Any:
        return Any

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


def _stub(name: str) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A decorator, plain or with arguments, gives back what it decorates.
        if len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]
        return self

    return _StubType(name, (), {"__init__": lambda self, *a, **k: None, "__call__": call, "__module__": "stub",
                                "__getattr__": lambda self, attribute: _stub(attribute)()
                                if not attribute.startswith("__") else (_ for _ in ()).throw(AttributeError(attribute))})


class _StubModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        value = _stub(name)
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        self.roots: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if any(fullname == root or fullname.startswith(root + ".") for root in self.roots):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = _StubModule(spec.name)
        module.__path__ = []
        module.__version__ = "0.0.0"
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


_FINDER = _Finder()


def stub(*roots: str) -> None:
    """Let `import root` and everything below it succeed where the real package is not there."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    _FINDER.roots.update(roots)


def replace(*names: str) -> None:
    """Put a stub in place of a module that is there but cannot be imported whole (wants a GPU, a server, a newer Python)."""
    stub(*names)
    for name in names:
        if name not in sys.modules:
            module = _FINDER.create_module(importlib.machinery.ModuleSpec(name, _FINDER, is_package=True))
            module.__spec__ = importlib.machinery.ModuleSpec(name, _FINDER, is_package=True)
            sys.modules[name] = module
