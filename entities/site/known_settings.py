"""The known settings with their types and defaults: those of this program, and those that CiviCRM scripts read."""

from dataclasses import dataclass
from typing import Any

from civiapi.api.declaration.fields import BOOLEAN, INT, STRING, TEXT, Type
from civiapi.api.parameters.amounts import NOTATION
from civiapi.auth.authx_policy import CREDENTIALS, GUARDS_SETTING, PERMISSION, SITE_KEY, setting_of


@dataclass(frozen=True, slots=True)
class KnownSetting:
    """A setting: its type, its default, and whether it is a list."""

    name: str
    title: str
    type: Type = STRING
    default: Any = None
    is_list: bool = False


_FLOWS = {
    "header": "Authorization",
    "xheader": "X-Civi-Auth",
    "param": "_authx",
    "legacyrest": "key and api_key",
    "login": "a login",
    "auto": "a link that opens a session",
}

SETTINGS: dict[str, KnownSetting] = {
    one.name: one
    for one in (
        KnownSetting("mailchimpsync_config", "Mailchimp accounts and linked groups", TEXT, default=False),
        KnownSetting(GUARDS_SETTING, "Authentication guards", default=[SITE_KEY, PERMISSION], is_list=True),
        *(
            KnownSetting(setting_of(flow), f"Credentials in {where}", default=list(CREDENTIALS[flow]), is_list=True)
            for flow, where in _FLOWS.items()
        ),
        KnownSetting("contact_undelete", "Contact Trash and Undelete", BOOLEAN, default=1),
        KnownSetting("debug_enabled", "Enable Debugging", BOOLEAN, default=0),
        KnownSetting("environment", "Environment", default="Production"),
        KnownSetting("lcMessages", "Default Language", default="en_US"),
        KnownSetting("defaultCurrency", "Default Currency", default="USD"),
        KnownSetting("monetaryDecimalPoint", "Decimal Delimiter", default=NOTATION["monetaryDecimalPoint"]),
        KnownSetting("monetaryThousandSeparator", "Thousands Separator", default=NOTATION["monetaryThousandSeparator"]),
        KnownSetting("dateformatDatetime", "Date Format: Complete Date and Time", default="%B %E%f, %Y %l:%M %P"),
        KnownSetting("dateformatFull", "Date Format: Complete Date", default="%B %E%f, %Y"),
        KnownSetting("enable_components", "Enabled Components", default=["CiviMail"], is_list=True),
        KnownSetting("includeEmailInName", "Include Email in Name", BOOLEAN, default=1),
        KnownSetting("includeWildCardInName", "Automatic Wildcard", BOOLEAN, default=1),
        KnownSetting("search_autocomplete_count", "Autocomplete Results", INT, default=10),
        KnownSetting("max_attachments", "Maximum Attachments", INT, default=3),
        KnownSetting("checksum_timeout", "Checksum Lifespan", INT, default=7),
        KnownSetting("site_id", "Unique Site ID", default=None),
    )
}
