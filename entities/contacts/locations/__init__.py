"""A contact's addresses, email addresses and phone numbers."""
