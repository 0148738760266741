"""Results written batch by batch: .npz, .jsonl or .parquet; whole, or not at all."""
from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..results import Shaped
from .rollouts import Rollouts

_BLOCK = 1 << 20


class Refused(Exception):
    """An option or a combination of options; the text says the mend."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path in a folder of its own beside `path`, moved there at the end; on any exception both are as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        part = folder / path.name
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet module."""
    try:
        import pyarrow
        import pyarrow.parquet

        return pyarrow, pyarrow.parquet
    except ModuleNotFoundError:
        raise Refused("a .parquet file needs pyarrow; install it with: pip install pyarrow, or write .jsonl or .npz") from None


class Writer(Protocol):
    """What takes the results of batches."""

    def add(self, rollouts: Rollouts, shaped: Shaped) -> None:
        """Appends a batch."""

    def finish(self) -> None:
        """Completes the file."""

    def close(self) -> None:
        """Lets go of what is open; after `finish` or instead of it."""


class Output:
    """The file of results as a context: in place when the context ends without an exception, else not there."""

    def __init__(self, path: Path) -> None:
        kinds: dict[str, Callable[[Path], Writer]] = {".npz": Npz, ".jsonl": JsonLines, ".parquet": Parquet}
        if path.suffix not in kinds:
            raise Refused(f"--out {path}: the file's name must end in .npz, .jsonl or .parquet")
        if path.suffix == ".parquet":
            arrow()
        self._kind, self._path, self._stack = kinds[path.suffix], path, ExitStack()

    def __enter__(self) -> Writer:
        self._stack.__enter__()
        part = self._stack.enter_context(whole(self._path))
        self._writer: Writer = self._kind(part)
        # Closed before the folder goes, whatever happened.
        self._stack.callback(self._writer.close)
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                self._writer.finish()
                self._writer.close()
            except BaseException as fault:
                self._stack.__exit__(type(fault), fault, fault.__traceback__)
                raise
        self._stack.__exit__(kind, value, trace)


class JsonLines:
    """One object a rollout: group, sample, advantages (one a token), path_score, num_chunks. Numbers read back to the same bits."""

    def __init__(self, part: Path) -> None:
        self._file = part.open("w", encoding="utf-8", newline="\n")

    def add(self, rollouts: Rollouts, shaped: Shaped) -> None:
        for i, (begin, end) in enumerate(zip(rollouts.cu_seqlens, rollouts.cu_seqlens[1:])):
            # Not json.dump, whose encoder is Python's.
            self._file.write(json.dumps({"group": rollouts.group[i], "sample": rollouts.sample[i], "advantages": shaped.advantages[begin:end].tolist(),
                       "path_score": float(shaped.path_scores[i]), "num_chunks": int(shaped.num_chunks[i])}, separators=(",", ":")) + "\n")

    def finish(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Parquet:
    """One row a rollout with the columns of `JsonLines`, a row group a batch."""

    def __init__(self, part: Path) -> None:
        self._part = part
        self._writer: Any = None
        self._types: dict[str, Any] = {}

    def add(self, rollouts: Rollouts, shaped: Shaped) -> None:
        pyarrow, parquet = arrow()
        if self._writer is None:
            for name, keys in (("group", rollouts.group), ("sample", rollouts.sample)):
                self._types[name] = pyarrow.int64() if all(isinstance(key, int) for key in keys) else pyarrow.string()
        columns = {name: pyarrow.array(self._keys(name, keys, rollouts), type=self._types[name])
                   for name, keys in (("group", rollouts.group), ("sample", rollouts.sample))}
        columns["advantages"] = pyarrow.LargeListArray.from_arrays(pyarrow.array(rollouts.cu_seqlens), pyarrow.array(shaped.advantages))
        columns["path_score"] = pyarrow.array(shaped.path_scores)
        columns["num_chunks"] = pyarrow.array(shaped.num_chunks)
        table = pyarrow.table(columns)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._part, table.schema)
        self._writer.write_table(table)

    def _keys(self, name: str, keys: list[int | str], rollouts: Rollouts) -> list[Any]:
        if self._types[name] != arrow()[0].int64():
            return [str(key) for key in keys]
        for i, key in enumerate(keys):
            if not isinstance(key, int):
                line = "" if rollouts.line is None else f"line {rollouts.line[i]}: "
                raise Refused(f'{line}"{name}" is the text {key!r} and was a number in the lines before; a .parquet column has one type: '
                              "write all of them as text, or write .jsonl")
        return keys

    def finish(self) -> None:
        pass

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Keys:
    """Names of groups or samples, kept on disk until it is known whether all are integers and how long the longest is."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+", encoding="utf-8", newline="\n")
        self.count, self._longest, self._integers = 0, 1, True

    def add(self, keys: list[int | str]) -> None:
        for key in keys:
            self._file.write(json.dumps(key) + "\n")
            self._integers = self._integers and isinstance(key, int)
            self._longest = max(self._longest, len(str(key)))
        self.count += len(keys)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int64) if self._integers else np.dtype(f"<U{self._longest}")

    def blocks(self) -> Iterator[NDArray[Any]]:
        self._file.seek(0)
        held: list[Any] = []
        for line in self._file:
            held.append(json.loads(line) if self._integers else str(json.loads(line)))
            if len(held) == 4096:
                yield np.array(held, dtype=self.dtype)
                held = []
        yield np.array(held, dtype=self.dtype)

    def close(self) -> None:
        self._file.close()


class Npz:
    """Arrays of all rollouts: advantages `[N]` f32, cu_seqlens `[R+1]`, group, sample `[R]`, path_scores, num_chunks `[R]`, and the chunks as CSR:
    chunk_offsets `[R+1]`, chunk_ends, chunk_values `[C]`. An array's length stands before its elements, so each is gathered on disk and
    copied into the archive at the end."""

    def __init__(self, part: Path) -> None:
        self._part, self._stack = part, ExitStack()
        self._files: dict[str, Any] = {}
        self._lengths: dict[str, tuple[np.dtype[Any], int]] = {}
        self._keys = {name: _Keys(part.parent / name) for name in ("group", "sample")}
        for keys in self._keys.values():
            self._stack.callback(keys.close)
        self._tokens = self._chunks = 0
        self._append("cu_seqlens", np.zeros(1, dtype=np.int64))
        self._append("chunk_offsets", np.zeros(1, dtype=np.int64))

    def _append(self, name: str, values: NDArray[Any]) -> None:
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self._part.parent / name).open("w+b"))
            self._lengths[name] = (values.dtype, 0)
        dtype, length = self._lengths[name]
        assert dtype == values.dtype, name
        self._files[name].write(np.ascontiguousarray(values).data)
        self._lengths[name] = (dtype, length + len(values))

    def add(self, rollouts: Rollouts, shaped: Shaped) -> None:
        for name in ("advantages", "path_scores", "num_chunks", "chunk_ends", "chunk_values"):
            self._append(name, getattr(shaped, name))
        self._append("cu_seqlens", rollouts.cu_seqlens[1:] + self._tokens)
        self._append("chunk_offsets", shaped.chunk_offsets[1:] + self._chunks)
        self._tokens += int(rollouts.cu_seqlens[-1])
        self._chunks += int(shaped.chunk_offsets[-1])
        self._keys["group"].add(rollouts.group)
        self._keys["sample"].add(rollouts.sample)

    def finish(self) -> None:
        order = ("advantages", "cu_seqlens", "group", "sample", "path_scores", "num_chunks", "chunk_offsets", "chunk_ends", "chunk_values")
        with zipfile.ZipFile(self._part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in order:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    dtype, length = (self._keys[name].dtype, self._keys[name].count) if name in self._keys else self._lengths[name]
                    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
                    np.lib.format.write_array_header_1_0(member, header)
                    for block in map(np.ndarray.tobytes, self._keys[name].blocks()) if name in self._keys else self._blocks(name):
                        member.write(block)

    def _blocks(self, name: str) -> Iterator[bytes]:
        file = self._files[name]
        file.seek(0)
        while block := file.read(_BLOCK):
            yield block

    def close(self) -> None:
        self._stack.close()
