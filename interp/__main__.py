"""`python -m interp` and the script `interp`: the command line, after a check that the right packages are imported."""

import sys
from typing import NoReturn

from interp.doctor.package_origin import PACKAGES, misplaced
from interp.doctor.platforms import unsupported


def main() -> NoReturn:
    """Run the command line.

    Exit code 1 on an unsupported platform or if another `training` or `analyses` would be imported, otherwise that of
    `interp.cli.main`.
    """
    for problem in filter(None, (unsupported(), *map(misplaced, PACKAGES))):
        sys.exit(f"interp: {problem}")
    from interp.cli import main as run

    run()


if __name__ == "__main__":
    main()
