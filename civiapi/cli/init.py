"""``civiapi init``: the example settings with random keys, readable only by the owner."""

import os
import re
import secrets
from importlib.resources import files
from pathlib import Path

from civiapi.settings import SettingsError
from civiapi.store.address import trouble


def write_new_settings(path: Path, database: str = "") -> None:
    """Write *path* (mode 600) from the example with new keys, and the URL of another *database*.

    Raises ``SettingsError`` if it exists or the URL is none.
    """
    if database and (wrong := trouble(database)):
        raise SettingsError(f"--database {wrong}")
    text = _example()
    if database:
        text = re.sub(r"^url =.*$", lambda _: f"url = {database}", text, count=1, flags=re.M)
    text = re.sub(r"^site_key =.*$", f"site_key = {secrets.token_hex(16)}", text, flags=re.M)
    text = re.sub(r"^signing_secret =.*$", f"signing_secret = {secrets.token_hex(32)}", text, flags=re.M)
    text = re.sub(r"^api_key =.*$", f"api_key = {secrets.token_hex(16)}", text, flags=re.M)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{path} already exists; it was not changed") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _example() -> str:
    """The example packaged with the program (in the source tree, a link to the top-level file)."""
    return (files("civiapi") / "settings.example.ini").read_text("utf-8")
