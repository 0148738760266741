"""Wraps a framework's module as it is imported: before another module can take a function from it by name, in whatever process that happens."""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _Hook(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.wanted: dict[str, list[Callable[[Any], None]]] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in self.wanted:
            return None
        # The other finders' answer, be it a package on disk or a test's stand-in.
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                _followed(spec.loader, self.wanted[fullname])
                return spec
        return None


def _followed(loader: Any, functions: list[Callable[[Any], None]]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        for function in functions:
            function(module)

    loader.exec_module = exec_module


_hook = _Hook()


def after_import(name: str, function: Callable[[Any], None]) -> None:
    """Calls `function(module)` once module `name` has been imported: now, where it has been. The same function is called once a process."""
    if _hook not in sys.meta_path:
        sys.meta_path.insert(0, _hook)
    found = _hook.wanted.setdefault(name, [])
    if function in found:
        return
    found.append(function)
    if name in sys.modules:
        function(sys.modules[name])
