"""Puts libpassrl and its headers into the package, and names the platform: one `py3-none-<platform>` wheel serves every Python.

The library is that at `PASSRL_LIBRARY`, or it is built by cargo from the crate: `crate/` in a source distribution, the repository in a checkout.
An editable install takes none along: it finds `target/release` of its checkout. `make wheel` makes wheel and source distribution.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
NAME = "libpassrl.dylib" if sys.platform == "darwin" else "libpassrl.so"


def crate() -> Path:
    for folder in (HERE / "crate", *HERE.parents):
        if (folder / "Cargo.toml").exists():
            return folder
    sys.exit(f"passrl: there is no crate in {HERE} nor above; build from a source distribution or a checkout")


def library() -> Path:
    if os.environ.get("PASSRL_LIBRARY"):
        found = Path(os.environ["PASSRL_LIBRARY"])
        if not found.is_file():
            sys.exit(f"passrl: PASSRL_LIBRARY is {found}, which is not there")
        return found
    if shutil.which("cargo") is None:
        sys.exit("passrl: building from source needs cargo (1.89 or later): curl https://sh.rustup.rs -sSf | sh")
    # A tree that pip has unpacked is removed after the build; a checkout keeps its objects.
    environment = {"CARGO_PROFILE_RELEASE_STRIP": "debuginfo", **os.environ}
    subprocess.run(["cargo", "build", "--release", "--locked", "--lib"], cwd=crate(), env=environment, check=True)
    return Path(environment.get("CARGO_TARGET_DIR", crate() / "target")) / "release" / NAME


class Build(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "passrl"
        (package / "include").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library(), package / NAME)
        (package / NAME).chmod(0o755)
        # Of the wheels that the project makes; a build from source has none.
        if os.environ.get("PASSRL_TVM_FFI"):
            shutil.copyfile(os.environ["PASSRL_TVM_FFI"], package / "libpassrl_tvmffi.so")
            (package / "libpassrl_tvmffi.so").chmod(0o755)
        for header in (crate() / "include").glob("passrl*.h*"):
            shutil.copyfile(header, package / "include" / header.name)


class Platform(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(distclass=Platform, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
