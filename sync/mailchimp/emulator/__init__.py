"""A Mailchimp of our own: the Marketing API 3.0 as `docs/` describes it, for demos, rehearsals and tests.

``world`` answers requests as plain data and does no I/O; ``app`` puts it behind HTTP; ``running`` starts it
inside a program (``running_emulator``, ``serve``). Nothing here is needed to talk to the real Mailchimp.
"""
