"""Text as CiviCRM stores and compares it: encoded characters, collation, and PHP's serialized maps."""
