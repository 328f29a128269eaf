"""The demo: a small charity's CiviCRM and its Mailchimp audience, brought into step on one machine."""

from pathlib import Path

SAMPLE = Path(__file__).parent / "data" / "civicrm"
"""The charity's CiviCRM data, as CSV files."""
