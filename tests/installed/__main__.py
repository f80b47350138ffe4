"""Do as a user does who installed the wheel: `python tests/installed [--from-nothing]`.

Builds the sdist and, from it, the wheel; installs that into a fresh environment; and runs the steps
of `steps` from a folder that holds nothing but files of the user's own. Ends with 1 where one
failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from steps import STEPS
from workplace import prepare


def main() -> int:
    """Run the steps; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--from-nothing",
        action="store_true",
        help="install all dependencies too (gigabytes), instead of taking this environment's",
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter, from nothing")
    parser.add_argument("--only", nargs="+", help="steps with one of these words in their title")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="medseg-installed-") as folder:
        place = prepare(Path(folder).resolve(), options.from_nothing, options.python)
        print(f"installed: {place.wheel.name}, {len(STEPS)} steps", flush=True)
        for title, function in STEPS:
            if options.only and not any(words in title for words in options.only):
                continue
            begun = time.monotonic()
            try:
                function(place)
                result = "ok    "
            except Exception as error:
                failed += 1
                result = "failed"
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            print(f"{result} {time.monotonic() - begun:5.1f} s  {title}", flush=True)
    print(f"installed: {failed} failed" if failed else "installed: all ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
