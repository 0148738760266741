"""Advantages of RL post-training (PASS and its rivals) on the caller's own memory.

    import passrl
    shaped = passrl.shape("pass", steps=passrl.Steps(offsets, ends, scores), cu_seqlens=cu, groups=prompts, outcome=r, format=f)
    shaped.advantages

`shape` is one call; `Plan` and `Partials` are for the hot path and for micro-batches; `Config` and `presets` for what is computed.
"""
from . import errors
from ._ffi import library_path, plain as _plain, text as _text
from .batch import Steps, group_index
from .config import Config, Preset, presets
from .errors import (
    ArgumentError,
    CollectiveError,
    DataError,
    DeviceError,
    DtypeError,
    Error,
    InternalError,
    LibraryError,
    NotServedError,
    ShapeError,
    UnknownNameError,
)
from .partials import Partials, Section
from .plan import Call, Plan
from .results import Finding, GroupFlag, Report, RolloutFlag, Shaped, Stats, StreamStats
from .shape import shape

__version__: str = _text("version")
numerics_version: int = _plain("numerics_version")

__all__ = [
    "ArgumentError", "Call", "CollectiveError", "Config", "DataError", "DeviceError", "DtypeError", "Error", "Finding", "GroupFlag",
    "InternalError", "LibraryError", "NotServedError", "Partials", "Plan", "Preset", "Report", "RolloutFlag", "Section", "ShapeError",
    "Shaped", "Stats", "Steps", "StreamStats", "UnknownNameError", "errors", "group_index", "library_path", "numerics_version", "presets",
    "shape",
]
