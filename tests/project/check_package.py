"""Check the contents of ``dist/`` after a build; ``make package`` calls ``python tests/project/check_package.py dist``.

The sdist must hold every file of the repository, so that the tests run and the documents build from it. The wheel must
hold every module and data file of the program, the licence, and nothing else. Exit code 1 names what differs.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("civiapi/", "entities/", "sync/")
ONLY_IN_GIT = {".gitignore"}


def differences(dist: Path, tracked: set[str]) -> list[str]:
    """What is missing from or too much in the one sdist and the one wheel in *dist*; empty if all is well."""
    [sdist], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if not name.endswith("/")}
    program = {name for name in tracked if name.startswith(PACKAGES)}
    modules = {name for name in in_wheel if ".dist-info/" not in name}
    licences = {name for name in in_wheel if name.endswith(".dist-info/licenses/LICENSE")}
    return (
        [f"{sdist.name} lacks {name}" for name in sorted(tracked - ONLY_IN_GIT - in_sdist)]
        + [f"{wheel.name} lacks {name}" for name in sorted(program - in_wheel)]
        + [f"{wheel.name} should not hold {name}" for name in sorted(modules - program)]
        + ([] if licences else [f"{wheel.name} lacks LICENSE"])
    )


if __name__ == "__main__":
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = differences(Path(sys.argv[1]), set(listed.stdout.splitlines()))
    print("\n".join(found) or "sdist and wheel are complete")
    sys.exit(bool(found))
