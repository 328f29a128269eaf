"""The demo: a small charity's CiviCRM and its Mailchimp audience, brought into step on one machine."""
