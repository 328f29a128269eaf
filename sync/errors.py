"""Errors of the sync that its callers may show. They are API errors, so that actions let them pass.

    SyncError (an ApiError)    a request that cannot be met; the text says why, that of the extension where it has one
    ├── UnknownGroup           no audience is linked with that group
    ├── ListNotConfigured      no such audience in the configuration
    ├── InvalidListId          text that cannot be an audience's id
    ├── BadConfig              a configuration that cannot be read
    ├── ConfigChanged          somebody else changed the configuration meanwhile
    ├── UnknownAccount         an API key that the configuration does not hold
    ├── MailchimpFailed        Mailchimp did not do what the request needs
    ├── SyncBraked             a sync would do more than it may unasked
    └── NoBaseUrl              a webhook needs a public address and none is set

What goes wrong in speaking to Mailchimp is ``sync/mailchimp/errors.py``. No text here holds a key or a secret.
"""

from civiapi.api.errors import ApiError


class SyncError(ApiError):
    """The request cannot be met; nothing was changed beyond what the text says."""


class UnknownGroup(SyncError):
    """No audience is linked with this group."""

    def __init__(self, group_id: object) -> None:
        super().__init__(f"Unknown group ID `{group_id}`")


class ListNotConfigured(SyncError):
    """The configuration holds no such audience."""

    def __init__(self, list_id: str) -> None:
        super().__init__(f"List '{list_id}' is not configured.")


class InvalidListId(SyncError):
    """An audience's id is letters, digits and underscores."""

    def __init__(self, list_id: str) -> None:
        super().__init__(f"Invalid Mailchimp list id: '{list_id}'")


class BadConfig(SyncError):
    """The configuration is not what it should be."""


class ConfigChanged(SyncError):
    """The configuration is not the one that was edited."""

    def __init__(self) -> None:
        super().__init__(
            "The configuration was changed meanwhile, by somebody else or by a sync. Nothing was saved: "
            "load the current one, then make the change again."
        )


class UnknownAccount(SyncError):
    """Given API Key is not configured."""

    def __init__(self) -> None:
        super().__init__("Given API Key is not configured.")


class MailchimpFailed(SyncError):
    """Mailchimp could not be asked, or said no."""


class SyncBraked(SyncError):
    """A sync would remove or add more people than it may unasked, and stopped before it did."""


class NoBaseUrl(SyncError):
    """A webhook needs an address at which Mailchimp reaches us."""

    def __init__(self) -> None:
        super().__init__(
            "Webhooks need the public address of this server: set [server] base_url (such as https://crm.example.org)."
        )
