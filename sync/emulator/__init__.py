"""Mailchimp's Marketing API 3.0 as a local server, for demos, rehearsals and tests.

`world.World` answers requests as plain data without I/O; `server` serves it over HTTP (`running_emulator`, `serve`).
"""
