"""ctypes over libpassrl: the header's structs and functions, and nothing else. Names are those of include/passrl.h."""
from __future__ import annotations

import ctypes
import math
import os
import sys
from ctypes import POINTER, byref, c_char, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from . import errors

VERSION = (0, 1)
ABI_VERSION = 1

F64, F32, F16, BF16, I64, I32, U8, BOOL = range(1, 9)
CPU, CUDA = 1, 2
PACKED, PADDED = 0, 1
MAX_STREAMS, MAX_PROCESS, MAX_EXTRA = 16, 4, 10
STREAM_OUTCOME, STREAM_FORMAT, STREAM_EXTRA = 4, 5, 6


class Stream(ctypes.Structure):
    _fields_ = [
        ("weight", c_double), ("epsilon", c_double), ("center", c_int32), ("scale", c_int32), ("ddof", c_int32),
        ("epsilon_mode", c_int32), ("loo_unit", c_int32), ("singleton", c_int32), ("missing", c_int32), ("place", c_int32),
        ("zero_variance", c_int32), ("count_by", c_int32), ("clip_value", c_double), ("clip_standardized", c_double),
        ("reserved", c_int64 * 3), ("name", c_char * 32),
    ]


class Config(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        *[(name, c_int32) for name in (
            "num_process", "num_extra", "kind", "pool", "fusion", "chunk", "boundary_rule", "merge_equal_steps", "average_over",
            "bridge_scope_gaps", "chunk_value", "credit", "divide_scope", "whiten", "whiten_ddof", "whiten_epsilon_mode",
            "whiten_shift", "fill_padding", "strict", "compat", "reserved0")],
        *[(name, c_double) for name in ("opd_lambda", "eta", "gamma", "lam", "k", "temperature", "whiten_epsilon", "clip")],
        ("streams", Stream * MAX_STREAMS),
        *[(name, c_int32) for name in (
            "kl_in_reward", "kl_place", "scan_mask", "gae_over", "divide_by", "step_sets", "step_value", "token_baseline")],
        *[(name, c_double) for name in (
            "kl_coef", "kl_log_ratio_clamp", "kl_clamp", "lam_returns", "lam_length_alpha", "step_gamma", "rho_clip", "c_clip")],
    ]


class ContextOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("backend", c_int32), ("device", c_int32), ("threads", c_int32), ("simd", c_int32),
        ("reserved0", c_int32), ("small_call_bytes", c_int64), ("cache_dir", c_char_p),
        ("nvrtc", c_char_p), ("kernels", c_int32), ("reserved1", c_int32),
    ]


class View(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("shape", c_int64 * 2), ("stride", c_int64 * 2), ("ndim", c_int32), ("dtype", c_int32),
        ("device_type", c_int32), ("device_id", c_int32),
    ]


ViewP = POINTER(View)


class Batch(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("layout", c_int32), ("num_rollouts", c_int64), ("num_groups", c_int64), ("row_tokens", c_int64),
        ("pad_side", c_int32), ("reserved0", c_int32),
        *[(name, ViewP) for name in ("cu_seqlens", "lengths", "mask", "group_index", "group_offsets")],
        ("group_size", c_int64), ("outcome", ViewP), ("format", ViewP), ("extra", ViewP * MAX_EXTRA),
        *[(name, ViewP) for name in ("format_ok", "in_stats", "absent", "baselines", "bootstrap")],
        ("signal", ViewP * MAX_PROCESS),
        *[(name, ViewP) for name in (
            "logp_policy", "logp_teacher", "logp_base", "logp_reference", "values", "token_rewards", "chunk_ends", "step_offsets",
            "step_ends", "step_begins", "step_scores", "step_marks", "step_group", "piece_rollout", "piece_begin")],
        ("stats_in", c_void_p), ("stats_in_bytes", c_size_t), ("rollout_lam", ViewP), ("logp_behavior", ViewP),
        *[(name, ViewP) for name in ("stats_mean", "stats_std", "sum_pi_squared", "token_ratio", "piece_index", "rollout_index")],
    ]


class Section(ctypes.Structure):
    _fields_ = [("offset", c_uint64), ("count", c_uint64), ("dtype", c_int32), ("op", c_int32)]


class Report(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved0", c_uint32),
        *[(name, c_int64) for name in (
            "findings", "first_finding", "first_rollout", "first_group", "first_stream", "rollouts", "tokens", "chunks",
            "degenerate_groups", "bad_groups", "violating_groups", "missing_values", "nonfinite_values", "low_logps",
            "clipped_tokens", "overflowed_tokens", "bad_steps", "lost_deviations")],
        ("sum_advantages", c_double), ("sum_squares", c_double),
    ]


class Outputs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved0", c_uint32),
        *[(name, ViewP) for name in (
            "advantages", "returns", "path_scores", "num_chunks", "chunk_ends", "chunk_values", "stats_count", "stats_mean",
            "stats_std", "stats_absmax", "group_flags", "rollout_flags")],
        ("report", POINTER(Report)),
    ]


class Limits(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved0", c_uint32),
        *[(name, c_int64) for name in (
            "rollouts", "groups", "tokens", "rollout_tokens", "steps", "group_rollouts", "group_elements", "pieces", "rollout_pieces", "batch_rollouts")],
    ]


class Collective(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved0", c_uint32), ("user", c_void_p), ("all_reduce", c_void_p), ("rank", c_int32),
        ("size", c_int32), ("device_type", c_int32), ("reserved1", c_int32),
    ]


# Name: result (None: nothing; c_int32: a status that `call` checks), arguments.
_P = c_void_p
# Workspace, its bytes, stream.
_MEMORY = [_P, c_size_t, _P]
_STATUS: dict[str, list[Any]] = {
    "config_init": [POINTER(Config), c_uint32],
    "config_init_preset": [POINTER(Config), c_uint32, c_char_p],
    "config_set": [POINTER(Config), c_char_p, c_char_p],
    "context_create": [POINTER(ContextOptions), POINTER(_P)],
    "context_describe": [_P, c_char_p, c_size_t, POINTER(c_size_t)],
    "plan_create": [_P, POINTER(Config), POINTER(Limits), POINTER(Collective), POINTER(_P)],
    "plan_workspace_size": [_P, POINTER(c_size_t)],
    "plan_describe": [_P, c_char_p, c_size_t, POINTER(c_size_t)],
    "plan_run": [_P, POINTER(Batch), POINTER(Outputs), _P, c_size_t, _P],
    "plan_phases": [_P, POINTER(c_int32)],
    "plan_apply": [_P, POINTER(Batch), _P, c_size_t, POINTER(Outputs), _P, c_size_t, _P],
    "partials_size": [_P, POINTER(c_size_t)],
    "partials_init": [_P, _P, c_size_t],
    "partials_add": [_P, c_int32, POINTER(Batch), _P, c_size_t, _P, c_size_t, _P],
    "partials_merge": [_P, _P, c_size_t, _P, c_size_t],
    "partials_layout": [_P, c_int32, POINTER(Section), c_size_t, POINTER(c_size_t)],
    "primitive_workspace_size": [_P, POINTER(Limits), POINTER(c_size_t)],
    "group_standardize": [_P, POINTER(Batch), POINTER(Stream), *[ViewP] * 6, *_MEMORY],
    "chunk_boundaries": [_P, POINTER(Batch), POINTER(Config), *[ViewP] * 2, *_MEMORY],
    "discounted_returns": [_P, POINTER(Batch), c_double, *[ViewP] * 2, *_MEMORY],
    "gae": [_P, POINTER(Batch), c_double, c_double, *[ViewP] * 5, *_MEMORY],
    "divide_length": [_P, POINTER(Batch), c_double, *[ViewP] * 2, *_MEMORY],
    "kl_in_reward": [_P, POINTER(Batch), POINTER(Config), *[ViewP] * 4, *_MEMORY],
    "opd_signal": [_P, POINTER(Batch), c_double, *[ViewP] * 4, *_MEMORY],
    "whiten": [_P, POINTER(Batch), POINTER(Config), *[ViewP] * 2, *_MEMORY],
    "group_flags": [_P, POINTER(Batch), POINTER(Config), *[ViewP] * 2, POINTER(Report), *_MEMORY],
    "limits_init": [POINTER(Limits), c_uint32],
    "batch_init": [POINTER(Batch), c_uint32],
    "outputs_init": [POINTER(Outputs), c_uint32],
    "collective_init": [POINTER(Collective), c_uint32],
    "context_options_init": [POINTER(ContextOptions), c_uint32],
    "report_init": [POINTER(Report), c_uint32],
    "report_status": [POINTER(Report)],
    "report_merge": [POINTER(Report), POINTER(Report)],
    "view_from_dlpack": [_P, ViewP],
    "group_index": [ViewP, ViewP, POINTER(c_int64)],
}
_PLAIN: dict[str, tuple[Any, list[Any]]] = {
    "preset_count": (c_int32, []),
    "preset_name": (c_char_p, [c_int32]),
    "preset_source": (c_char_p, [c_int32]),
    "context_destroy": (None, [_P]),
    "plan_destroy": (None, [_P]),
    "version": (c_char_p, []),
    "abi_version": (c_uint32, []),
    "numerics_version": (c_uint32, []),
    "last_error": (c_char_p, []),
    "status_name": (c_char_p, [c_int32]),
    "report_size": (c_size_t, []),
}


def _candidates() -> list[Path]:
    name = "libpassrl.dylib" if sys.platform == "darwin" else "libpassrl.so"
    here = Path(__file__).resolve().parent
    told = os.environ.get("PASSRL_LIBRARY")
    if told:
        # Nothing else is tried: a misspelt path must not give another library's numbers.
        return [Path(told)]
    found = [here / name]
    # A checkout: bindings/python/passrl -> target/release.
    found.append(here.parents[2] / "target" / "release" / name)
    return found


def _load() -> tuple[ctypes.CDLL, Path]:
    tried = _candidates()
    for path in tried:
        if path.exists():
            try:
                return ctypes.CDLL(str(path)), path
            except OSError as fault:
                raise errors.LibraryError(errors.ERR_RESOURCE, f"passrl: {path} does not load: {fault}") from fault
    if os.environ.get("PASSRL_LIBRARY"):
        raise errors.LibraryError(errors.ERR_RESOURCE, f"passrl: PASSRL_LIBRARY is {tried[0]}, where there is no file; correct it or unset it")
    listed = ", ".join(str(path) for path in tried)
    raise errors.LibraryError(
        errors.ERR_RESOURCE,
        f"passrl: libpassrl is not at any of {listed}; build it with `cargo build --release` or set PASSRL_LIBRARY to its path",
    )


_library, library_path = _load()


def _include() -> Path:
    here = Path(__file__).resolve().parent
    return here / "include" if (here / "include").is_dir() else here.parents[2] / "include"


# Folder of passrl.h and passrl.hpp.
include_path = _include()


def tvm_ffi_path() -> Path:
    """The library for apache-tvm-ffi, beside libpassrl: `tvm_ffi.load_module(str(passrl.tvm_ffi_path()))`. The project's wheels have it; in a checkout
    `make tvm-ffi` makes it. Errors: `LibraryError` where it is not there."""
    found = library_path.with_name("libpassrl_tvmffi.so")
    if not found.exists():
        raise errors.LibraryError(errors.ERR_RESOURCE, f"passrl: there is no {found}; the project's wheels have it, and in a checkout `make tvm-ffi` makes it")
    return found


def _bind(name: str, result: Any, arguments: list[Any]) -> Any:
    try:
        function = getattr(_library, "passrl_" + name)
    except AttributeError as fault:
        raise errors.LibraryError(errors.ERR_RESOURCE, f"passrl: {library_path} has no passrl_{name}; it is of another version") from fault
    function.restype, function.argtypes = result, arguments
    return function


_functions: dict[str, Any] = {name: _bind(name, c_int32, arguments) for name, arguments in _STATUS.items()}
_functions.update({name: _bind(name, result, arguments) for name, (result, arguments) in _PLAIN.items()})


def function(name: str) -> Any:
    """The raw function `passrl_<name>`: no check of its status."""
    return _functions[name]


def bare(name: str) -> Any:
    """The raw function `passrl_<name>`, a status, for arguments that are ctypes objects already: nothing is converted or checked on the way."""
    # Indexing gives a new function object; `function` keeps its argument types.
    found = _library["passrl_" + name]
    found.restype = c_int32
    return found


def word(number: int) -> Any:
    """A size or an address as an argument of `bare` functions: as an address, which ctypes passes on without making anything (`c_size_t` costs it an object a
    call)."""
    return byref(c_char.from_address(number))


def last_error() -> str:
    """The sentence of this thread's last call that did not return 0."""
    return str(_functions["last_error"]().decode())


def call(name: str, *arguments: Any) -> int:
    """Calls `passrl_<name>`; a negative status is raised, 0 or a positive one (findings) returned."""
    status = int(_functions[name](*arguments))
    if status < 0:
        errors.refuse(status, last_error())
    return status


def plain(name: str, *arguments: Any) -> Any:
    """Calls a function that returns something else than a status."""
    return _functions[name](*arguments)


def text(name: str, *arguments: Any) -> str:
    """Text that the library owns; "" for NULL."""
    found = _functions[name](*arguments)
    return "" if found is None else str(found.decode())


def described(name: str, handle: Any) -> str:
    """Text that a describe function writes into a buffer."""
    needed = c_size_t()
    call(name, handle, None, 0, byref(needed))
    buffer = ctypes.create_string_buffer(needed.value)
    call(name, handle, buffer, needed.value, None)
    return buffer.value.decode()


def made(kind: Any, name: str) -> Any:
    """A struct filled by its init function."""
    struct = kind()
    call(name + "_init", byref(struct), ctypes.sizeof(kind))
    return struct


def _check() -> None:
    def same(what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise errors.LibraryError(
                errors.ERR_STRUCT_SIZE,
                f"passrl: {library_path} has {what} {found}, this package was written for {wanted}; install matching versions",
            )

    same("ABI version", plain("abi_version"), ABI_VERSION)
    version = text("version")
    same("version", tuple(int(part) for part in version.split(".")[:2]), VERSION)
    same("a report of (bytes)", plain("report_size"), ctypes.sizeof(Report))
    config = made(Config, "config")
    # The last fields hold their defaults only where both sides agree on every offset before them.
    same("configuration k", config.k, 0.7)
    same("configuration clip", config.clip, math.inf)
    same("name of the last stream", config.streams[MAX_STREAMS - 1].name, b"extra_9")
    for kind, name in ((Limits, "limits"), (Batch, "batch"), (Outputs, "outputs"), (Report, "report"),
                       (Collective, "collective"), (ContextOptions, "context_options")):
        same(f"struct_size of {name}", made(kind, name).struct_size, ctypes.sizeof(kind))


_check()
