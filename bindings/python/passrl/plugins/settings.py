"""A configuration as text: `pass`, or `pass:k=0.5,outcome.ddof=0`, as the command line's `--presets` has it."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..config import Config
from ..errors import ERR_VALUE, refuse

# For frameworks whose options are a closed list.
VARIABLE = "PASSRL_PRESET"


def configured(preset: str | Config, fields: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `NAME[:KEY=VALUE,...]` (or a `Config`) with further fields. Errors: `UnknownNameError` with the nearest names."""
    if isinstance(preset, Config):
        config = Config(preset)
    else:
        name, _, text = preset.partition(":")
        config = Config(name.strip())
        for setting in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = setting.partition("=")
            if not equals:
                refuse(ERR_VALUE, f"passrl: the preset {preset!r} has {setting!r}; write NAME:KEY=VALUE,KEY=VALUE, as pass:k=0.5")
            config.set(key.strip(), value.strip())
    for key, value in (fields or {}).items():
        config.set(key, value)
    return config


def from_environment(given: Any = None) -> Config:
    """The configuration that `given` (a framework's own option, where it has one) or the variable PASSRL_PRESET names; without both: `pass`."""
    return configured(given or os.environ.get(VARIABLE) or "pass")
