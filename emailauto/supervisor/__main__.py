"""`python -m emailauto.supervisor`: `manage.py up` without waiting for Django to load twice."""

import sys
from pathlib import Path

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.supervisor.exceptions import StartError
from emailauto.supervisor.stack import up


def main() -> None:
    """Run everything until asked to stop; a start that fails exits with its reason."""
    try:
        up(Path(__file__).resolve().parents[2])
    except (StartError, EmbeddedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
