"""Alerts: an e-mail or a webhook request when a problem begins, and when it is over.

A problem is a finding of ``System.check`` of severity warning or error. Stored alerts are compared with the findings:
what is new opens an alert, what is gone closes it, and each change is queued as one message for each channel, in the
same transaction. So a restart neither repeats nor loses one.
"""
