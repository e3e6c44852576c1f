"""`python -m bench.results`: the table of docs/performance.md, from what the last runs left in
`var/bench`."""

import sys
from pathlib import Path

import msgspec

from bench.processes import CHECKOUT
from bench.report import say

_HEAD = "| bench | what | emailauto | against | ratio, median (min–max) |\n|---|---|---|---|---|"


def results(directory: Path) -> str:
    """The machine, and one line per comparison."""
    documents = [msgspec.json.decode(path.read_bytes()) for path in directory.glob("*.json")]
    machines = sorted({document["machine"] for document in documents})
    lines = [each["line"] for document in documents for each in document["comparisons"]]
    return "\n".join(["; ".join(machines), "", _HEAD, *sorted(lines)])


if __name__ == "__main__":
    say(results(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "var" / "bench"))
