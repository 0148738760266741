"""The recorded cases (tests/gpu_cases.rs) on the device and on the CPU: every byte of every array, run directly and by a replayed graph."""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from driver import Driver, ffi

MAGIC = b"passrl-1"
_SUMS = ("sum_advantages", "sum_squares")


class Refused(Exception):
    """Why the file cannot be read."""


class Reader:
    """Numbers and parts of a record."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        self.at += 8
        return int.from_bytes(self.data[self.at - 8 : self.at], "little")

    def part(self) -> bytes:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at]


class Case:
    """A configuration, limits, batch and outputs as they were in memory, with the views and the memory behind them."""

    def __init__(self, record: bytes) -> None:
        read = Reader(record)
        self.name = read.part().decode()
        self.config, self.limits = (kind.from_buffer_copy(read.part()) for kind in (ffi.Config, ffi.Limits))
        self.batch, self.outputs = read.part(), read.part()
        self.views = [(read.number(), read.part()) for _ in range(read.number())]
        self.memory = [(read.number(), read.part()) for _ in range(read.number())]
        if read.at != len(record):
            raise Refused(f"the record of {self.name} has {len(record)} bytes, {read.at} were read; write the file with this version's tests")


def records(path: Path) -> Iterator[Case]:
    """The cases of a file."""
    with path.open("rb") as file:
        if file.read(8) != MAGIC:
            raise Refused(f"{path} is no file of cases, or of another version; write it with: PASSRL_GPU_CASES={path} cargo test --test gpu_cases")
        while size := file.read(8):
            yield Case(file.read(int.from_bytes(size, "little")))


def _pointed(struct: Any, views: dict[int, Any]) -> None:
    """Pointers to views, wherever the struct has them, to the views' copies."""
    for name, kind in struct._fields_:
        if kind is ffi.ViewP:
            old = ctypes.cast(getattr(struct, name), c_void_p).value
            if old:
                setattr(struct, name, ctypes.pointer(views[old]))
        elif isinstance(kind, type) and issubclass(kind, ctypes.Array) and kind._type_ is ffi.ViewP:
            array = getattr(struct, name)
            for i in range(len(array)):
                old = ctypes.cast(array[i], c_void_p).value
                if old:
                    array[i] = ctypes.pointer(views[old])


class Put:
    """A case in memory of its own, of the host or of a device."""

    def __init__(self, case: Case, driver: Driver | None, context: Any) -> None:
        self.case, self.driver = case, driver
        self.host: list[Any] = []
        self.places = [self._new(content) for _, content in case.memory]
        views: dict[int, Any] = {}
        for address, raw in case.views:
            view = ffi.View.from_buffer_copy(raw)
            for (old, content), place in zip(case.memory, self.places):
                if view.data is not None and old <= view.data < old + max(len(content), 1):
                    view.data = place + view.data - old
                    break
            if driver is not None:
                view.device_type, view.device_id = ffi.CUDA, driver.number
            views[address] = view
        self.batch, self.outputs = ffi.Batch.from_buffer_copy(case.batch), ffi.Outputs.from_buffer_copy(case.outputs)
        reports = bool(self.outputs.report)
        self._views = views
        for struct in (self.batch, self.outputs):
            _pointed(struct, views)
        self.plan = c_void_p()
        ffi.call("plan_create", context, byref(case.config), byref(case.limits), None, byref(self.plan))
        size = c_size_t()
        ffi.call("plan_workspace_size", self.plan, byref(size))
        self.bytes = max(size.value, 1)
        self.workspace = self._new(b"\xa5" * self.bytes, 64)
        self.report = self._new(bytes(ffi.made(ffi.Report, "report")), 8)
        self.outputs.report = ctypes.cast(c_void_p(self.report if reports else None), ctypes.POINTER(ffi.Report))
        self._reports = reports

    def _new(self, content: bytes, align: int = 16) -> int:
        if self.driver is not None:
            return self.driver.new(content)
        room = ctypes.create_string_buffer(len(content) + align)
        self.host.append(room)
        at = -(-ctypes.addressof(room) // align) * align
        ctypes.memmove(at, content, len(content))
        return at

    def run(self) -> int:
        stream = None if self.driver is None else self.driver.stream
        return int(ffi.function("plan_run")(self.plan, byref(self.batch), byref(self.outputs), self.workspace, self.bytes, stream))

    def again(self) -> None:
        """The memory as it was before the run."""
        for (_, content), place in zip(self.case.memory, self.places):
            self.driver.fill(place, content)

    def read(self) -> tuple[list[bytes], Any]:
        """What the memory holds now, and the report."""
        sizes = [len(content) for _, content in self.case.memory]
        fetch = ctypes.string_at if self.driver is None else self.driver.read
        report = ffi.Report.from_buffer_copy(fetch(self.report, ctypes.sizeof(ffi.Report))) if self._reports else None
        return [fetch(place, size) for place, size in zip(self.places, sizes)], report

    def close(self) -> None:
        ffi.function("plan_destroy")(self.plan)
        if self.driver is not None:
            for place in (*self.places, self.workspace, self.report):
                self.driver.free(place)


def _difference(case: Case, cpu: tuple[list[bytes], Any], device: tuple[list[bytes], Any]) -> str:
    """What differs first, in words; "" for nothing."""
    for number, (ours, theirs) in enumerate(zip(device[0], cpu[0])):
        if ours != theirs:
            at = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
            return f"array {number} of {len(cpu[0])} at byte {at} of {len(theirs)}: {ours[at // 8 * 8 : at // 8 * 8 + 8].hex()} on the device, {theirs[at // 8 * 8 : at // 8 * 8 + 8].hex()} on the CPU"
    if cpu[1] is not None:
        for name, _ in ffi.Report._fields_:
            ours, theirs = getattr(device[1], name), getattr(cpu[1], name)
            # Sums over all rollouts are added in an order of the backend's own.
            close = name in _SUMS and (abs(ours - theirs) <= 1e-9 * max(abs(theirs), cpu[1].sum_squares ** 0.5 * cpu[1].tokens ** 0.5, 1) or (ours != ours and theirs != theirs))
            if ours != theirs and not close:
                return f"report.{name} is {ours} on the device, {theirs} on the CPU"
    return ""


def one(case: Case, driver: Driver, spoil: bool) -> str:
    """Runs a case on both sides; what differs."""
    cpu, device = Put(case, None, driver.contexts["cpu"]), Put(case, driver, driver.contexts["cuda"])
    try:
        status = cpu.run()
        said = ffi.last_error() if status < 0 else ""
        ours = device.run()
        if status < 0 or ours < 0:
            return "" if status < 0 and ours < 0 else f"the CPU says {status} {said!r}, the device {ours} {ffi.last_error()!r}"
        driver.wait()
        wanted, found = cpu.read(), device.read()
        if spoil:
            last = bytearray(found[0][-1])
            last[0] ^= 1
            found[0][-1] = bytes(last)
        differs = _difference(case, wanted, found)
        if differs:
            return differs
        device.again()
        graph = driver.captured(device.run)
        for _ in range(2):
            device.again()
            graph.launch()
            driver.wait()
        replayed = device.read()
        graph.destroy()
        differs = _difference(case, wanted, replayed)
        return f"replayed as a graph: {differs}" if differs else ""
    finally:
        cpu.close()
        device.close()


def check(driver: Driver, path: Path, names: list[str], spoil: str | None) -> dict[str, Any]:
    """All cases whose names hold one of `names` (none: all)."""
    ran, failed = 0, []
    for case in records(path):
        if names and not any(name in case.name for name in names):
            continue
        ran += 1
        if ran % 500 == 0:
            print(f"{ran} cases, {len(failed)} differ ...", flush=True)
        differs = one(case, driver, spoil is not None and case.name == spoil)
        if differs:
            failed.append(case.name)
            if len(failed) <= 20:
                print(f"{case.name}: {differs}", file=sys.stderr, flush=True)
    print(f"{ran - len(failed)} of {ran} cases have the bits of the CPU, run directly and as a replayed graph", flush=True)
    return {"cases": ran, "differ": len(failed), "failed": failed}
