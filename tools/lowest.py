"""Are the stated minima true? Install the lowest version each requirement admits and run the quick tests with them.

    python tools/lowest.py .venv-lowest            then the whole quick test run
    python tools/lowest.py .venv-lowest tests/sdn  only these tests

``torch`` stays at the tested release (its oldest builds are gigabytes); a minimum that the registry no longer has is
said, and what pip finds above it is taken. Exit code: that of the tests, or of pip where it fails otherwise.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("requirements.txt", "requirements-export.txt", "requirements-dev.txt")


def lowest(text: str) -> list[str]:
    """``name==minimum`` for every line of a requirements file that states a minimum; pins stay as they are."""
    found = []
    for line in text.splitlines():
        requirement, _, marker = line.split("#")[0].strip().partition(";")
        if match := re.match(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*(>=|==)\s*([^,\s]+)", requirement.strip()):
            name, _, version = match.groups()
            found.append(f"{name}=={version}" + (f"; {marker.strip()}" if marker else ""))
    return found


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    folder, tests = Path(argv[0]), argv[1:]
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        venv.create(folder, with_pip=True)
    wanted = [line for name in FILES for line in lowest((ROOT / name).read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "lowest.txt")
        print("installing", *wanted, sep="\n  ", flush=True)
        while True:
            file.write_text("\n".join(wanted) + "\n", encoding="utf-8")
            command = [python, "-m", "pip", "install", "--quiet", "-r", str(file)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if not done.returncode:
                break
            gone = re.search(r"No matching distribution found for (\S+)==", done.stderr)
            if gone is None or not (lines := [line for line in wanted if line.startswith(f"{gone[1]}==")]):
                sys.stderr.write(done.stderr)
                return done.returncode
            print(f"{lines[0]} cannot be had; taking what is above it", flush=True)
            wanted = [line.replace("==", ">=", 1) if line in lines else line for line in wanted]
    return subprocess.run([python, "-m", "pytest", "-q", *tests], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
