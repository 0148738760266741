"""Advantages of RL post-training (PASS and its rivals) on the caller's own memory.

    import passrl
    shaped = passrl.shape("pass", steps=passrl.Steps(offsets, ends, scores), cu_seqlens=cu, groups=prompts, outcome=r, format=f)
    shaped.advantages

`shape` is one call; `Plan` and `Partials` are for the hot path and for micro-batches; `Config` and `presets` for what is computed. Its
stages on their own: `group_standardize`, `chunk`, `discounted_returns`, `gae`, `divide_length`, `opd_signal`, `kl_in_reward`, `whiten`, `group_flags`.
"""
from . import errors
from ._ffi import include_path, library_path, plain as _plain, text as _text, tvm_ffi_path
from .collective import Collective
from .config import Config, Preset, presets
from .errors import (
    ArgumentError,
    CollectiveError,
    DataError,
    DeviceError,
    DtypeError,
    Error,
    FindingWarning,
    InternalError,
    LibraryError,
    NotServedError,
    ShapeError,
    UnknownNameError,
)
from .group_primitives import Flags, group_flags, group_standardize
from .groups import group_index
from .partials import Partials, Section
from .pieces import Pieces, zigzag
from .plan import Call, Plan
from .primitives import Chunks, chunk, discounted_returns, divide_length, gae, kl_in_reward, opd_signal, whiten
from .results import Finding, GroupFlag, Report, RolloutFlag, Shaped, Stats, StreamStats
from .shape import shape
from .steps import Steps

__version__: str = _text("version")
numerics_version: int = _plain("numerics_version")

__all__ = [
    "ArgumentError", "Call", "Chunks", "Collective", "CollectiveError", "Config", "DataError", "DeviceError", "DtypeError", "Error", "Finding",
    "FindingWarning", "Flags", "GroupFlag", "InternalError", "LibraryError", "NotServedError", "Partials", "Pieces", "Plan", "Preset", "Report",
    "RolloutFlag", "Section", "ShapeError", "Shaped", "Stats", "Steps", "StreamStats", "UnknownNameError", "chunk", "discounted_returns",
    "divide_length", "errors", "gae", "group_flags", "group_index", "group_standardize", "include_path", "kl_in_reward", "library_path", "numerics_version", "opd_signal",
    "presets", "shape", "tvm_ffi_path", "whiten", "zigzag",
]
