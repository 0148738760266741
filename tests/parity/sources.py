"""A framework's own statements, run where they stand in the middle of a method that wants a model.

`block` reads the installed file (or one in a wheel), finds the statements from the one that assigns `first` to the last one that assigns
`last` in the same body, and gives a function that executes exactly those on given names. `function` does so for a whole function or method.
Nothing is copied: the framework's text is compiled from its own file.
"""
from __future__ import annotations

import ast
import importlib.util
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

WHEELS = pathlib.Path(__file__).resolve().parents[2] / ".venv-parity" / "wheels"


def text(package: str, path: str, wheel: str | None = None) -> str:
    """Text of `package/path`, installed or in a wheel that setup.sh has fetched (a version that cannot be installed beside a newer one)."""
    if wheel:
        with zipfile.ZipFile(next(WHEELS.glob(wheel))) as archive:
            return archive.read(f"{package}/{path}").decode()
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return (pathlib.Path(list(spec.submodule_search_locations)[0]) / path).read_text()


def _assigns(statement: ast.stmt, name: str) -> bool:
    """Whether the statement, or one inside it, assigns the name."""
    return any(isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name for node in ast.walk(statement))


def _plain(statement: ast.stmt, name: str) -> bool:
    return isinstance(statement, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)


def block(source: str, within: str, first: str, last: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The statements of function `within` from the first `first = ...` to the last that assigns `last` before that body ends.

    Of several bodies the innermost that has both is taken. The function found executes them in a dictionary of names and gives it back.
    """
    method = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == within)
    bodies = [body for node in ast.walk(method) for body in (getattr(node, "body", []), getattr(node, "orelse", [])) if isinstance(body, list)]
    for body in reversed(bodies):
        begin = next((k for k, statement in enumerate(body) if _plain(statement, first)), None)
        end = max((k for k, statement in enumerate(body) if _plain(statement, last)), default=None)
        if begin is not None and end is not None and begin <= end:
            code = compile(ast.Module(body=body[begin : end + 1], type_ignores=[]), f"<{within}>", "exec")

            def run(names: dict[str, Any], code: Any = code) -> dict[str, Any]:
                exec(code, names)
                return names

            return run
    raise LookupError(f"{within} has no body that assigns {first} and then {last}")


def function(source: str, name: str, names: dict[str, Any]) -> Any:
    """The function or method `name` of the source, its globals being `names` (which it joins); decorators and annotations left out."""
    found = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == name)
    found.decorator_list, found.returns = [], None
    for argument in [*found.args.args, *found.args.kwonlyargs]:
        argument.annotation = None
    exec(compile(ast.Module(body=[found], type_ignores=[]), f"<{name}>", "exec"), names)
    return names[name]
