"""Versions of packages, read from their metadata: nothing is imported, since what is broken may not import."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from harness.doctor.finding import Finding, Level
from harness.doctor.known_pairs import check_pairs

SHOWN = (
    *("kdlosses", "torch", "torchvision", "open_clip_torch", "timm", "webdataset", "clip_benchmark", "numpy"),
    *("transformers", "lightning", "triton"),
)
# What `clipkd` itself needs; the other extras are trainers that a loss may be used in.
_HARNESS = "harness"
_EXTRAS = ("open-clip", "hugging-face", "lightning")
_INSTALL = "pip install '.[harness]' in a checkout of kdlosses"


def check_versions(_folder: Path) -> Iterator[Finding]:
    """The versions that matter, and what does not fit."""
    shown = ", ".join(f"{name} {installed(name) or '-'}" for name in SHOWN)
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("versions", "ok", f"python {platform.python_version()} on {system}, {shown}")
    pairs = check_pairs(installed)
    yield from pairs
    wrong = [row for row in (*own_requirements(), *requirements_of_others()) if not _said(row, pairs)]
    yield from wrong
    if not wrong and installed("kdlosses"):
        yield Finding("packages", "ok", "all that kdlosses[harness] needs is there, in versions that it takes")


def installed(name: str) -> str | None:
    """The version of a package, None where it is missing or its metadata is broken."""
    try:
        found = metadata.version(name)
        Version(found)
    except (metadata.PackageNotFoundError, KeyError, InvalidVersion, TypeError):
        return None
    return found


def own_requirements() -> Iterator[Finding]:
    """What kdlosses asks for and is missing or of another version."""
    if installed("kdlosses") is None:
        says = "kdlosses itself is not installed, so what it needs was not compared"
        yield Finding("packages", "warning", says, _INSTALL)
        return
    missing = []
    for requirement in _requirements("kdlosses", _HARNESS):
        version = installed(requirement.name)
        if version is None:
            missing.append(requirement.name)
        elif not _fits(requirement, version):
            yield _misfit(requirement, version, _too_old(requirement, version))
    if missing:
        yield Finding("packages", "fault", f"missing: {', '.join(missing)}", _INSTALL)
    yield from _misfits_of_extras()


def requirements_of_others() -> Iterator[Finding]:
    """What the packages that matter ask of each other; pip lets a later install break it."""
    names = {canonicalize_name(name) for name in SHOWN}
    for name in SHOWN[1:]:
        for requirement in _requirements(name) if installed(name) else ():
            version = installed(requirement.name)
            if canonicalize_name(requirement.name) in names and version and not _fits(requirement, version):
                says = f"{name} {installed(name)} asks for {_short(requirement)}, and {version} is installed"
                # Compiled against each other, these do not even import.
                level: Level = "fault" if {name, requirement.name} == {"torch", "torchvision"} else "warning"
                yield Finding("packages", level, says, f"pip install '{_short(requirement)}', or another {name}")


def _misfits_of_extras() -> Iterator[Finding]:
    """Packages of trainers, where they are installed; a warning, as clipkd itself may do without."""
    base = {(item.name, str(item.specifier)) for item in _requirements("kdlosses", _HARNESS)}
    for extra in _EXTRAS:
        for requirement in _requirements("kdlosses", extra):
            version = installed(requirement.name)
            told = (requirement.name, str(requirement.specifier)) in base
            if version and not told and not _fits(requirement, version):
                yield _misfit(requirement, version, False, f" for kdlosses[{extra}]")


def _misfit(requirement: Requirement, version: str, fault: bool, of: str = "") -> Finding:
    says = f"{requirement.name} {version} is not in the tested range {requirement.specifier}{of}"
    return Finding("packages", "fault" if fault else "warning", says, f"pip install '{_short(requirement)}'")


def _requirements(package: str, extra: str = "") -> list[Requirement]:
    """The requirements of a package as it is installed, those of an extra among them, for this machine."""
    found = [Requirement(text) for text in metadata.requires(package) or ()]
    return [item for item in found if item.marker is None or item.marker.evaluate({"extra": extra})]


def _fits(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _too_old(requirement: Requirement, version: str) -> bool:
    """Whether a lower bound is missed, which is known to fail; upper bounds are where the tests end."""
    return any(
        not part.contains(version, prereleases=True) for part in requirement.specifier if "<" not in part.operator
    )


def _short(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _said(row: Finding, pairs: list[Finding]) -> bool:
    """Whether a known pair gives the reason already, and is no milder."""
    name = row.says.split()[0]
    return any(name in pair.says.split() and (pair.level == "fault" or pair.level == row.level) for pair in pairs)
