"""``civiapi rehearse``: a first sync of a copy of the database with an emulated Mailchimp that has an export's members.

The site's database is only read, and Mailchimp is never called: the copy's configuration has the emulator's key in
place of the site's.
"""
