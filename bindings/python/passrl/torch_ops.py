"""`torch.ops.passrl.*`: the package's functions as torch operators, with fake kernels, so that `torch.compile` takes them whole (fullgraph).

    import passrl.torch_ops
    advantages = torch.ops.passrl.shape(signal, cu_seqlens=cu, group_size=8, outcome=outcome, fields="k=0.5")

Operators, their arguments those of the functions of the same name: shape, group_standardize, discounted_returns, gae, divide_length, opd_signal, whiten.
Tensors are read in place, results are new tensors of compact memory, which autograd takes for constants: advantages have no gradient. Findings in the data
warn (`passrl.FindingWarning`), refusals raise `passrl.Error`. Nothing here is imported by `import passrl`; needs torch 2.4 or later.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from . import errors
from .group_primitives import group_standardize as _group_standardize
from .primitives import discounted_returns as _discounted_returns
from .primitives import divide_length as _divide_length
from .primitives import gae as _gae
from .primitives import opd_signal as _opd_signal
from .primitives import whiten as _whiten
from .shape import shape as _shape
from .steps import Steps

_LAYOUT = 'Tensor? cu_seqlens=None, Tensor? lengths=None, str pad_side="right", Tensor? mask=None, Tensor? absent=None'
_GROUPS = "Tensor? groups=None, int? group_size=None, Tensor? group_offsets=None"
# Token-shaped arguments of `shape`: the first that is given has the result's shape.
_TOKENS = ("signal", "logp_policy", "values", "token_rewards", "mask", "step_marks", "chunk_ends", "logp_teacher", "logp_base", "logp_reference", "logp_behavior",
           "sum_pi_squared", "token_ratio")
_OTHERS = ("outcome", "format", "format_ok", "in_stats", "bootstrap", "baselines", "rollout_lam", "stats_mean", "stats_std", "step_offsets", "step_ends", "step_scores",
           "step_begins")
_library = torch.library.Library("passrl", "DEF")


def _operator(schema: str, real: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=[torch.Tag.pt2_compliant_tag] if hasattr(torch.Tag, "pt2_compliant_tag") else [])
    _library.impl(name, real, "CompositeExplicitAutograd")
    # No gradient and no node of one: the backend's kernel at once.
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"passrl::{name}", fake, lib=_library)


def _like(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty(x.shape, dtype=dtype or x.dtype, device=x.device)


def _fields(text: str) -> dict[str, Any]:
    """ "k=0.5, outcome.ddof=0" as fields and values."""
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            errors.refuse(errors.ERR_VALUE, f'passrl: fields has "{part}"; write fields="k=0.5, chunk=step"')
        found[key.strip()] = value.strip()
    return found


def _token(given: dict[str, Any]) -> torch.Tensor:
    for name in _TOKENS:
        if given.get(name) is not None:
            found: torch.Tensor = given[name]
            return found
    errors.refuse(errors.ERR_NULL, "passrl: torch.ops.passrl.shape has no token-shaped argument, so that nothing says how many tokens there are; give the mask")


def _run_shape(signal: Any = None, *, preset: str = "pass", fields: str = "", dtype: torch.dtype | None = None, **given: Any) -> torch.Tensor:
    _token({"signal": signal, **given})
    steps = [given.pop(name, None) for name in ("step_offsets", "step_ends", "step_scores", "step_begins")]
    scored = None if steps[0] is None else Steps(*steps)
    kind = {"steps": scored} if scored is not None and scored.scores is not None else {"step_ends": scored}
    shaped = _shape(preset, signal=signal, dtype=None if dtype is None else str(dtype), **kind, **given, **_fields(fields))
    if shaped.status > 0:
        warnings.warn(errors.FindingWarning(shaped.status, shaped.message), stacklevel=2)
    advantages: torch.Tensor = shaped.advantages
    return advantages


def _fake_shape(signal: Any = None, *, preset: str = "pass", fields: str = "", dtype: torch.dtype | None = None, **given: Any) -> torch.Tensor:
    return _like(_token({"signal": signal, **given}), dtype or torch.float32)


_optional = ", ".join(f"Tensor? {name}=None" for name in (*_TOKENS[1:4], *_TOKENS[5:], *_OTHERS))
_operator(f'shape(Tensor? signal=None, *, {_LAYOUT}, {_GROUPS}, {_optional}, str preset="pass", str fields="", ScalarType? dtype=None) -> Tensor',
          _run_shape, _fake_shape)
_operator(f'group_standardize(Tensor x, *, {_GROUPS}, str? standardize=None, int ddof=1, float epsilon=1e-6, str epsilon_mode="add_std") -> Tensor',
          _group_standardize, lambda x, **_: _like(x))
_operator(f"discounted_returns(Tensor rewards, float gamma=1.0, *, {_LAYOUT}) -> Tensor", _discounted_returns, lambda rewards, gamma=1.0, **_: _like(rewards))
_operator(f"gae(Tensor rewards, Tensor values, float gamma=1.0, float lam=1.0, *, Tensor? bootstrap=None, {_LAYOUT}) -> (Tensor, Tensor)",
          _gae, lambda rewards, values, gamma=1.0, lam=1.0, **_: (_like(rewards), _like(rewards)))
_operator(f"divide_length(Tensor x, float k=0.7, *, {_LAYOUT}) -> Tensor", _divide_length, lambda x, k=0.7, **_: _like(x))
_operator(f"opd_signal(Tensor logp_policy, Tensor logp_teacher, Tensor? logp_base=None, float opd_lambda=1.25, *, {_LAYOUT}) -> Tensor",
          _opd_signal, lambda logp_policy, logp_teacher, logp_base=None, opd_lambda=1.25, **_: _like(logp_policy, torch.float32))
_operator(f'whiten(Tensor x, *, int ddof=1, float epsilon=1e-8, str epsilon_mode="add_var", bool shift=True, {_LAYOUT}) -> Tensor',
          _whiten, lambda x, **_: _like(x))
