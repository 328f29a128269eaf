"""The oldest versions the program may run with, as pip takes them: ``python tests/oldest.py > constraints.txt``.

``make test-oldest`` installs exactly those and runs a part of the tests: a range is only true if both ends work.
"""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
LOWER = re.compile(r"([A-Za-z0-9_.-]+)>=([^,]+),")


def oldest(wanted: list[str]) -> list[str]:
    """``aiohttp>=3.14,<4`` to ``aiohttp==3.14``."""
    found = [LOWER.match(text) for text in wanted]
    return [f"{one[1]}=={one[2]}" for one in found if one is not None]


if __name__ == "__main__":
    print("\n".join(oldest(PROJECT["dependencies"])))
