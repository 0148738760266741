"""Throughput on a real device: each workload against a device-to-device copy of the same bytes, and against the same sums written in torch where that is said in a
few lines. A run is timed by events of the device around several replays; the median of the rounds counts."""
from __future__ import annotations

import ctypes
import statistics
import sys
from ctypes import byref, c_size_t, c_void_p
from typing import Any

GROUP, EPSILON = 8, 1e-6


def standardized(torch: Any, x: Any) -> Any:
    """[groups, GROUP] over each row: (x - mean) / (std + epsilon), ddof 1."""
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + EPSILON)


def grpo(torch: Any, outcome: Any, signal: Any) -> Any:
    """The outcome's advantage on every token, [R, T]."""
    return standardized(torch, outcome.view(-1, GROUP)).reshape(-1, 1).expand(signal.shape).contiguous().float()


def dense(torch: Any, outcome: Any, signal: Any) -> Any:
    """The preset pass on a process reward a token, [R, T] without padding: chunks by value, standardised with their group's, summed from the end, divided."""
    rows, width = signal.shape
    x = signal.float()
    end = torch.ones(rows, width, dtype=torch.bool, device=x.device)
    end[:, :-1] = (x[:, 1:] - x[:, :-1]).abs() > 1e-8
    inside, count = (x * end).view(-1, GROUP * width), end.view(-1, GROUP * width).sum(1, keepdim=True)
    mean = inside.sum(1, keepdim=True) / count
    deviation = (((x.view(-1, GROUP * width) - mean).square() * end.view(-1, GROUP * width)).sum(1, keepdim=True) / (count - 1)).sqrt()
    value = ((x.view(-1, GROUP * width) - mean) / (deviation + EPSILON)).view(rows, width) + standardized(torch, outcome.view(-1, GROUP)).reshape(-1, 1).float()
    to_go = (value * end).flip(1).cumsum(1).flip(1)
    left = end.int().flip(1).cumsum(1).flip(1)
    return to_go / left.float().pow(0.7)


def gae(torch: Any, rewards: Any, values: Any) -> tuple[Any, Any]:
    """As the frameworks write it: a loop over the tokens from the end, gamma 0.99, lambda 0.95."""
    after, value_after = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    columns = []
    for t in reversed(range(rewards.shape[1])):
        after = rewards[:, t] + 0.99 * value_after - values[:, t] + 0.99 * 0.95 * after
        value_after = values[:, t]
        columns.append(after)
    advantages = torch.stack(columns[::-1], 1)
    return advantages, advantages + values


class Work:
    """A workload: what the library is given, and the same in torch."""

    def __init__(self, name: str, preset: str, fields: dict[str, str], inputs: dict[str, Any], outputs: tuple[str, ...], rows: int, width: int, padded: bool, reference: Any) -> None:
        self.name, self.preset, self.fields, self.inputs, self.outputs = name, preset, fields, inputs, outputs
        self.rows, self.width, self.padded, self.reference = rows, width, padded, reference


def workloads(torch: Any, device: Any, rows: int, width: int) -> list[Work]:
    """What is measured: `rows` rollouts of `width` tokens, groups of 8."""
    make = torch.Generator(device="cpu").manual_seed(1)
    steps = -(-width // 64)
    levels = torch.randint(-2, 3, (rows, steps), generator=make).float()
    signal = levels.repeat_interleave(64, 1)[:, :width].contiguous().to(device)
    outcome = torch.rand(rows, generator=make).to(device)
    policy, teacher = ((-torch.rand(rows, width, generator=make)).to(device) for _ in range(2))
    values = torch.rand(rows, width, generator=make).to(device)
    ends = torch.arange(1, steps + 1).mul(64).clamp(max=width).repeat(rows).int().to(device)
    offsets = (torch.arange(rows + 1) * steps).int().to(device)
    none = {"kind": "none", "chunk": "none"}
    found = []
    for kind, label in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for padded in (False, True):
            how = "padded" if padded else "packed"
            x = signal.to(kind)
            found.append(Work(f"PRM dense, {how}, {label}", "pass", {}, {"outcome": outcome, "signal": x}, ("advantages",), rows, width, padded,
                              (lambda x=x: dense(torch, outcome, x)) if padded else None))
            a, b = policy.to(kind), teacher.to(kind)
            found.append(Work(f"KL, {how}, {label}", "pass", {"kind": "kl"}, {"outcome": outcome, "logp_policy": a, "logp_teacher": b}, ("advantages",), rows, width, padded, None))
    found.append(Work("PRM steps, packed, f32", "pass", {}, {"outcome": outcome, "step_offsets": offsets, "step_ends": ends, "step_scores": levels.flatten().to(device)},
                      ("advantages",), rows, width, False, None))
    found.append(Work("outcome alone, padded, f32", "pass", none, {"outcome": outcome, "mask": None}, ("advantages",), rows, width, True, lambda: grpo(torch, outcome, signal)))
    found.append(Work("GAE, padded, f32", "pass", {**none, "credit": "gae", "chunk": "token", "k": "0", "gamma": "0.99", "lam": "0.95", "outcome.weight": "0", "format.weight": "0"},
                      {"token_rewards": signal, "values": values}, ("advantages", "returns"), rows, width, True, lambda: gae(torch, signal, values)))
    return found


class Bound:
    """A plan bound to torch tensors: `run()` is one call."""

    def __init__(self, torch: Any, work: Work, context: Any, device: Any, number: int, stream: Any) -> None:
        from driver import ffi

        self.ffi, self.stream, self.keep = ffi, stream, []
        kinds = {torch.float64: ffi.F64, torch.float32: ffi.F32, torch.float16: ffi.F16, torch.bfloat16: ffi.BF16, torch.int64: ffi.I64, torch.int32: ffi.I32}
        on = (ffi.CUDA, number) if torch.device(device).type == "cuda" else (ffi.CPU, 0)

        def view(tensor: Any) -> Any:
            self.keep.append(tensor)
            shape = tuple(tensor.shape) if tensor.dim() == 2 else (tensor.shape[0], 1)
            strides = tensor.stride() if tensor.dim() == 2 else (tensor.stride()[0], 1)
            return ctypes.pointer(ffi.View(tensor.data_ptr(), shape, strides, tensor.dim(), kinds[tensor.dtype], *on))

        rows, width = work.rows, work.width
        shape = (rows, width) if work.padded else (rows * width,)
        config, limits = ffi.Config(), ffi.made(ffi.Limits, "limits")
        ffi.call("config_init_preset", byref(config), ctypes.sizeof(config), work.preset.encode())
        for key, value in work.fields.items():
            ffi.call("config_set", byref(config), key.encode(), value.encode())
        limits.rollouts, limits.groups, limits.tokens, limits.rollout_tokens = rows, rows // GROUP, rows * width, width
        limits.steps, limits.group_rollouts = rows * -(-width // 64), GROUP
        self.plan = c_void_p()
        ffi.call("plan_create", context, byref(config), byref(limits), None, byref(self.plan))
        size = c_size_t()
        ffi.call("plan_workspace_size", self.plan, byref(size))
        self.workspace = torch.empty(max(size.value, 1), dtype=torch.uint8, device=device)
        self.batch, self.struct = ffi.made(ffi.Batch, "batch"), ffi.made(ffi.Outputs, "outputs")
        self.batch.num_rollouts, self.batch.group_size = rows, GROUP
        if work.padded:
            self.batch.layout, self.batch.row_tokens = ffi.PADDED, width
            self.batch.lengths = view(torch.full((rows,), width, dtype=torch.int32, device=device))
        else:
            self.batch.cu_seqlens = view((torch.arange(rows + 1) * width).int().to(device))
        token_bytes = 0
        for name, tensor in work.inputs.items():
            if tensor is None:
                continue
            token = tensor.dim() == 2
            laid = tensor.reshape(shape) if token else tensor
            token_bytes += laid.numel() * laid.element_size()
            if name == "signal":
                self.batch.signal[0] = view(laid)
            else:
                setattr(self.batch, name, view(laid))
        self.results = [torch.empty(shape, dtype=torch.float32, device=device) for _ in work.outputs]
        for name, tensor in zip(work.outputs, self.results):
            setattr(self.struct, name, view(tensor))
            token_bytes += tensor.numel() * 4
        # Read once, written once.
        self.bytes = token_bytes

    def run(self) -> None:
        status = self.ffi.function("plan_run")(self.plan, byref(self.batch), byref(self.struct), self.workspace.data_ptr(), self.workspace.numel(), self.stream)
        if status < 0:
            raise RuntimeError(f"{status}: {self.ffi.last_error()}")


def _milliseconds(torch: Any, work: Any, repeats: int, rounds: int = 15) -> float:
    for _ in range(3):
        work()
    found = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / repeats)
    return statistics.median(found)


def measure(driver: Any, rows: int = 2048, width: int = 4096) -> Any:
    """The table, printed and returned."""
    try:
        import torch
    except ImportError:
        print("gpu/check: torch is not installed for this python3: throughput SKIPPED")
        return {"skipped": "no torch"}
    if not torch.cuda.is_available():
        print("gpu/check: torch sees no device: throughput SKIPPED")
        return {"skipped": "torch sees no device"}
    device = torch.device("cuda", driver.number)
    torch.cuda.set_device(device)
    stream = torch.cuda.Stream()
    found = []
    print(f"{rows} rollouts of {width} tokens, groups of {GROUP}; ns a token, and the time of a copy of as many bytes (read and written) as the workload must move")
    print(f"{'workload':<32}{'ns/token':>10}{'GB/s':>8}{'copy':>8}{'x copy':>8}{'torch':>10}{'x torch':>9}")
    with torch.cuda.stream(stream):
        for work in workloads(torch, device, rows, width):
            bound = Bound(torch, work, driver.contexts["cuda"], device, driver.number, stream.cuda_stream)
            ours = _milliseconds(torch, bound.run, 20)
            source, target = (torch.empty(bound.bytes // 2, dtype=torch.uint8, device=device) for _ in range(2))
            copy = _milliseconds(torch, lambda: target.copy_(source), 20)
            theirs = None
            if work.reference is not None:
                theirs = _milliseconds(torch, work.reference, 1, 5)
                reference = work.reference()
                wanted = reference[0] if isinstance(reference, tuple) else reference
                worst = float((bound.results[0].view(rows, width) - wanted).abs().max() / wanted.abs().max())
                if not worst < 1e-3:
                    print(f"{work.name}: differs from torch's by {worst:.2g}, more than the rounding of its sums", file=sys.stderr)
            tokens = rows * width
            row = {"workload": work.name, "ns_per_token": ours * 1e6 / tokens, "gb_per_s": bound.bytes / ours / 1e6, "copy_ns_per_token": copy * 1e6 / tokens,
                   "times_copy": ours / copy, "torch_ns_per_token": None if theirs is None else theirs * 1e6 / tokens, "times_faster_than_torch": None if theirs is None else theirs / ours}
            found.append(row)
            torch_cells = f"{'-':>10}{'-':>9}" if theirs is None else f"{row['torch_ns_per_token']:>10.4f}{theirs / ours:>9.1f}"
            print(f"{work.name:<32}{row['ns_per_token']:>10.4f}{row['gb_per_s']:>8.0f}{row['copy_ns_per_token']:>8.4f}{ours / copy:>8.2f}{torch_cells}", flush=True)
    return found
