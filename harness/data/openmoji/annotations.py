"""The table of OpenMoji's annotations that ships with the harness, and the command that regenerates it.

npm pack openmoji@17.0.0 && tar xzf openmoji-17.0.0.tgz
python -m harness.data.openmoji.annotations package/data/openmoji.json harness/assets/openmoji/annotations.tsv.gz
"""

import gzip
import json
import sys
from dataclasses import astuple, dataclass
from importlib.resources import files
from pathlib import Path

VERSION = "17.0.0"
ATTRIBUTION = "OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0"  # noqa: RUF001, their words
_HEADER = ("hexcode", "group", "subgroup", "annotation", "skintone", "base")


@dataclass(frozen=True)
class Icon:
    """One OpenMoji icon; `skintone` is "", one tone from "1" (light) to "5" (dark), or two as "1,2"."""

    hexcode: str
    group: str
    subgroup: str
    annotation: str
    skintone: str
    base: str

    @property
    def tone(self) -> int | None:
        """The icon's one tone, or None for an icon without a tone or with two of them."""
        return int(self.skintone) if len(self.skintone) == 1 else None


def read_icons() -> list[Icon]:
    """Return every icon of the shipped table, in OpenMoji's order."""
    packed = files("harness").joinpath("assets/openmoji/annotations.tsv.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    return [Icon(*line.split("\t")) for line in lines[1:]]


def write_table(source: Path, target: Path) -> None:
    """Cut OpenMoji's `data/openmoji.json` down to the shipped table, with the same bytes every time."""
    icons = [
        Icon(e["hexcode"], e["group"], e["subgroups"], e["annotation"], str(e["skintone"]), e["skintone_base_hexcode"])
        for e in json.loads(source.read_text(encoding="utf-8"))
    ]
    text = "".join("\t".join(row) + "\n" for row in [_HEADER, *map(astuple, icons)])
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), Path(sys.argv[2]))
