"""A settings file for a new site: the example, with fresh random keys, readable by its owner alone."""

import os
import re
import secrets
from importlib.resources import files
from pathlib import Path

from civiapi.settings import SettingsError


def write_new_settings(path: Path) -> None:
    """Write *path* (mode 600) from the example with new keys. Raises ``SettingsError`` if it is there already."""
    text = _example()
    text = re.sub(r"^site_key =.*$", f"site_key = {secrets.token_hex(16)}", text, flags=re.M)
    text = re.sub(r"^api_key =.*$", f"api_key = {secrets.token_hex(16)}", text, flags=re.M)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{path} exists already; it is left as it is") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _example() -> str:
    """The example as it is packed with the program (in the source tree, a link to the one at the top)."""
    return (files("civiapi") / "settings.example.ini").read_text("utf-8")
