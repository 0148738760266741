"""The configuration: fields by name, presets, shorthands."""
from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

from . import _ffi
from .errors import ERR_UNKNOWN_NAME, ERR_VALUE, Error, error, refuse

_EPSILON = ("add_std", "add_var", "floor_std", "floor_var")
# Values of the fields that are choices, in the order of the header's numbers.
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("prm", "kl", "none"),
    "pool": ("steps", "tokens", "rollouts"),
    "fusion": ("advantage", "reward_shaping", "pooled", "reward_sum"),
    "chunk": ("by_value", "step", "token", "none", "given", "segment"),
    "boundary_rule": ("adjacent", "anchored"),
    "average_over": ("live", "group"),
    "chunk_value": ("last", "mean"),
    "credit": ("return_to_go", "broadcast", "gae", "vtrace"),
    "divide_scope": ("all", "process"),
    "whiten": ("none", "tokens", "rollouts"),
    "whiten_epsilon_mode": _EPSILON,
    "kl_in_reward": ("none", "k1", "k2", "k3", "abs"),
    "kl_place": ("outcome", "reward", "advantage"),
    "scan_mask": ("carry", "decay", "none"),
    "gae_over": ("tokens", "chunks"),
    "divide_by": ("count", "discounted_count"),
    "step_sets": ("group", "step_group"),
    "step_value": ("score", "return_to_go"),
    "token_baseline": ("none", "position", "token"),
}
STREAM_CHOICES: dict[str, tuple[str, ...]] = {
    "center": ("none", "group", "leave_one_out", "batch", "length_weighted", "given", "runner_up"),
    "scale": ("none", "group", "leave_one_out", "batch", "given", "abs_max", "nonzero_share", "mean"),
    "epsilon_mode": _EPSILON,
    "loo_unit": ("element", "rollout"),
    "singleton": ("zero", "passthrough", "refuse"),
    "missing": ("error", "zero", "exclude"),
    "place": ("every", "last", "end"),
    "zero_variance": ("zero", "center"),
    "count_by": ("rollout", "step"),
}
_FLAGS = {"merge_equal_steps", "bridge_scope_gaps", "whiten_shift", "fill_padding", "strict", "compat"}
FIELDS: tuple[str, ...] = tuple(
    str(field[0]) for field in _ffi.Config._fields_ if field[0] not in ("struct_size", "reserved0", "streams")
)
STREAM_FIELDS = ("weight", "epsilon", "center", "scale", "ddof", "epsilon_mode", "loo_unit", "singleton", "missing", "place",
                 "zero_variance", "count_by", "clip_value", "clip_standardized")
STREAM_NAMES: tuple[str, ...] = (
    *(f"process_{p}" for p in range(_ffi.MAX_PROCESS)), "outcome", "format", *(f"extra_{x}" for x in range(_ffi.MAX_EXTRA)))


def _text(key: str, value: Any) -> bytes:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif value is None:
        refuse(ERR_VALUE, f"passrl: {key} is None; leave it out for the preset's value")
    elif isinstance(value, float) or (hasattr(value, "__float__") and not isinstance(value, (int, str))):
        value = repr(float(value))
    return str(value).encode()


class StreamView:
    """One row of the stream table: attributes weight, epsilon, center, scale, ddof, epsilon_mode, loo_unit, singleton, missing, place, zero_variance,
    clip_value, clip_standardized, name."""

    weight: float
    epsilon: float
    center: str
    scale: str
    ddof: int
    epsilon_mode: str
    loo_unit: str
    singleton: str
    missing: str
    place: str
    zero_variance: str
    count_by: str
    clip_value: float
    clip_standardized: float

    _config: Config
    _index: int
    __slots__ = ("_config", "_index")

    def __init__(self, config: Config, index: int) -> None:
        object.__setattr__(self, "_config", config)
        object.__setattr__(self, "_index", index)

    @property
    def name(self) -> str:
        """Name for messages."""
        return str(self._row().name.decode())

    def _row(self) -> Any:
        return self._config._struct.streams[self._index]

    def __getattr__(self, field: str) -> Any:
        if field not in STREAM_FIELDS:
            raise AttributeError(field)
        value = getattr(self._row(), field)
        return STREAM_CHOICES[field][value] if field in STREAM_CHOICES else value

    def __setattr__(self, field: str, value: Any) -> None:
        self._config.set(f"{STREAM_NAMES[self._index]}.{field}", value)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{field}={getattr(self, field)!r}" for field in STREAM_FIELDS) + "}"


class Config:
    """A configuration: a preset's fields, with any of them changed.

    `Config("pass", k=0.5, standardize="abs_max", outcome={"ddof": 0})`. Keys are the fields of the C header; a row of the stream table
    as `{"outcome.center": "none"}`, `outcome={"center": "none"}` or by the shorthands standardize, standardize_process,
    standardize_outcome, standardize_format, w_process, w_outcome, w_format, ddof, epsilon, epsilon_mode, loo_unit, singleton,
    missing (all streams). Fields are read and set as attributes (`config.k`, `config.streams["outcome"].center`); choices are text.

    Errors: `UnknownNameError` with the nearest names for an unknown key or preset; `ArgumentError` for a value that the field does
    not know. Ranges and settings that exclude each other are judged when a plan is made.
    """

    kind: str
    pool: str
    fusion: str
    chunk: str
    boundary_rule: str
    merge_equal_steps: bool
    average_over: str
    bridge_scope_gaps: bool
    chunk_value: str
    credit: str
    divide_scope: str
    whiten: str
    whiten_ddof: int
    whiten_epsilon_mode: str
    whiten_shift: bool
    fill_padding: bool
    strict: bool
    compat: bool
    num_process: int
    num_extra: int
    opd_lambda: float
    eta: float
    gamma: float
    lam: float
    k: float
    temperature: float
    whiten_epsilon: float
    clip: float

    __slots__ = ("_struct", "_told")

    def __init__(self, preset: str | Config = "pass", /, **fields: Any) -> None:
        struct = _ffi.Config()
        object.__setattr__(self, "_struct", struct)
        object.__setattr__(self, "_told", set())
        if isinstance(preset, Config):
            ctypes.memmove(ctypes.byref(struct), ctypes.byref(preset._raw), ctypes.sizeof(struct))
            self._set_told(preset.told)
        elif isinstance(preset, str):
            _ffi.call("config_init_preset", ctypes.byref(struct), ctypes.sizeof(struct), preset.encode())
        else:
            refuse(ERR_VALUE, f"passrl: preset is a {type(preset).__name__}; it must be a name or a passrl.Config")
        for key, value in fields.items():
            self.set(key, value)

    @property
    def _raw(self) -> Any:
        return object.__getattribute__(self, "_struct")

    @property
    def told(self) -> frozenset[str]:
        """Keys that were set after the preset."""
        return frozenset(object.__getattribute__(self, "_told"))

    def _set_told(self, keys: frozenset[str]) -> None:
        object.__getattribute__(self, "_told").update(keys)

    def set(self, key: str, value: Any) -> None:
        """Sets a field by its name; a mapping sets fields of a stream."""
        if isinstance(value, Mapping):
            for field, inner in value.items():
                self.set(f"{key}.{field}", inner)
            return
        _ffi.call("config_set", ctypes.byref(self._raw), key.encode(), _text(key, value))
        object.__getattribute__(self, "_told").add(key)

    def replace(self, **fields: Any) -> Config:
        """A copy with some fields changed."""
        return Config(self, **fields)

    @property
    def streams(self) -> dict[str, StreamView]:
        """Rows of the stream table by name: process_0 to process_3, outcome, format, extra_0 to extra_9."""
        return {name: StreamView(self, index) for index, name in enumerate(STREAM_NAMES)}

    def __getattr__(self, field: str) -> Any:
        if field not in FIELDS:
            raise AttributeError(f"Config has no field {field!r}")
        value = getattr(self._raw, field)
        if field in CHOICES:
            return CHOICES[field][value]
        return bool(value) if field in _FLAGS else value

    def __setattr__(self, field: str, value: Any) -> None:
        self.set(field, value)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((field, getattr(self, field)) for field in FIELDS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.key() == other.key()

    __hash__ = None  # type: ignore[assignment]

    def key(self) -> bytes:
        """All fields as bytes: equal for equal configurations."""
        return bytes(self._raw)

    def __copy__(self) -> Config:
        return Config(self)

    def __deepcopy__(self, memo: Any) -> Config:
        return Config(self)

    def __reduce__(self) -> tuple[Any, tuple[bytes, frozenset[str]]]:
        return _rebuilt, (self.key(), self.told)

    def __repr__(self) -> str:
        plain = Config("pass")
        fields = [f"{name}={value!r}" for name, value in self if value != getattr(plain, name)]
        ours, theirs = self.streams, plain.streams
        for name in STREAM_NAMES:
            changed = {f: getattr(ours[name], f) for f in STREAM_FIELDS if getattr(ours[name], f) != getattr(theirs[name], f)}
            if changed:
                fields.append(f"{name}={changed!r}")
        return f"Config({', '.join(fields)})"


def _rebuilt(raw: bytes, told: frozenset[str]) -> Config:
    config = Config()
    ctypes.memmove(ctypes.byref(config._raw), raw, min(len(raw), ctypes.sizeof(_ffi.Config)))
    config._set_told(told)
    return config


class Preset(str):
    """A preset's name, with `source`: paper and equations, or framework, file, function and commit."""

    source: str

    def __new__(cls, name: str, source: str) -> Preset:
        preset = super().__new__(cls, name)
        preset.source = source
        return preset

    def __reduce__(self) -> tuple[type[Preset], tuple[str, str]]:
        return type(self), (str(self), self.source)

    @property
    def config(self) -> Config:
        """The preset's configuration."""
        return Config(str(self))


def presets() -> list[Preset]:
    """The library's presets, each a name with its `.source`."""
    return [Preset(_ffi.text("preset_name", i), _ffi.text("preset_source", i)) for i in range(_ffi.plain("preset_count"))]


def unknown_argument(fault: Error, key: str, arguments: list[str]) -> Error:
    """The library's answer to an unknown key, with the nearest arguments of `shape` beside the fields."""
    import difflib

    near = difflib.get_close_matches(key, arguments, n=2, cutoff=0.6)
    return error(ERR_UNKNOWN_NAME, f"{fault}" + (f"; or the argument {', '.join(near)}" if near else ""))
