"""What all tools share. Importing it puts the repository's root on sys.path, so that a tool runs from any folder."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def run(main: Callable[[], int | None]) -> None:
    """Runs a tool and exits with its code; a fault that the user can mend is one line on stderr and code 2."""
    from lavender.runtime.errors import LavenderError

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        code = main()
    except (LavenderError, OSError) as fault:
        print(fault, file=sys.stderr)
        code = 2
    sys.exit(code)
