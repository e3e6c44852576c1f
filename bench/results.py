"""`python -m bench.results [DIRECTORY]`: the table of docs/performance.md, from what the last runs
left in `var/bench` or there, and their pictures into docs/performance/."""

import shutil
import sys
from pathlib import Path

import msgspec

from bench.processes import CHECKOUT
from bench.report import say

_HEAD = "| bench | what | emailauto | against | ratio, median (min–max) |\n|---|---|---|---|---|"
_PICTURES = CHECKOUT / "docs" / "performance"


def results(directory: Path) -> str:
    """The machine, one line per comparison, and one per picture."""
    paths = sorted(directory.glob("*.json"))
    documents = [msgspec.json.decode(path.read_bytes()) for path in paths]
    machines = sorted({document["machine"] for document in documents})
    lines = [each["line"] for document in documents for each in document["comparisons"]]
    pictures = [_shown(path) for path in sorted(directory.glob("*.svg"))]
    return "\n".join(["; ".join(machines), "", _HEAD, *sorted(lines), "", *pictures]).rstrip()


def copy_pictures(directory: Path, target: Path) -> None:
    """Put the pictures where the page shows them; one that no run made any more is removed."""
    target.mkdir(parents=True, exist_ok=True)
    made = {path.name: path for path in directory.glob("*.svg")}
    for path in target.glob("*.svg"):
        if path.name not in made:
            path.unlink()
    for path in made.values():
        shutil.copyfile(path, target / path.name)


def _shown(path: Path) -> str:
    """The picture as the page has it; what it shows stands in the table."""
    return f"![Bars: {path.stem}, as in the table](performance/{path.name})"


if __name__ == "__main__":
    found = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "var" / "bench"
    say(results(found))
    copy_pictures(found, _PICTURES)
