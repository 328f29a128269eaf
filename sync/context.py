"""What every part of the sync is given: the store, the clients and the settings. No module holds these itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from civiapi.runtime.shutdown import Stop
from civiapi.settings import Settings
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store
from civiapi.store.leases import Lease
from sync.audience import Audience, Privacy
from sync.data.plugins import DataPlugins, data_plugins
from sync.mailchimp.client import MailchimpClient
from sync.reconcile.planning import Watch


class ClientPool(Protocol):
    """Gives the one client of an account; closed by its opener."""

    def client_for(self, api_key: str) -> MailchimpClient:
        """The client of the account with this key. Raises InvalidApiKey for a key without a data centre."""


class AudienceLink(Protocol):
    """A link of the configuration (``connections.config.Link``)."""

    def audience(self, clock: SiteClock, *, privacy: Privacy) -> Audience:
        """The linked audience."""


@dataclass(frozen=True, slots=True)
class UnitSizes:
    """How much a unit of work (one transaction) takes at most, and how much may be in flight for an account.

    Units are so small that a webhook, which waits for the one writer, is answered within a tenth of a second.
    """

    rows_per_unit: int = 1000
    """Rows that Python reads."""
    set_rows_per_unit: int = 2000
    """Rows that set statements write."""
    reconciled_rows_per_unit: int = 500
    """Rows that are decided about one by one, which takes longest of all."""
    scanned_rows_per_unit: int = 4000
    """Rows that set statements read."""
    scanned_ids_per_unit: int = 50_000
    """Ids that a walk in their order passes, most of them of other audiences' rows."""
    members_per_page: int = 1000
    members_per_lookup: int = 50
    """Members fetched one by one before their answers are written."""
    results_per_unit: int = 500
    operations_in_flight: int = 10_000
    batches_in_flight: int = 100
    """Ten full batches or a hundred small ones (Mailchimp allows 500). Further updates wait here, where they can still
    be cancelled and do not delay other programs' batches."""


@dataclass(frozen=True, slots=True)
class SyncContext:
    """The store, the clients and the settings of one process. `plugins` say what data to send (``data.plugins``)."""

    store: Store
    clients: ClientPool
    settings: Settings = field(default_factory=Settings)
    plugins: DataPlugins = field(default_factory=data_plugins)
    holder: str = ""
    """The name of this process as a lease holder."""
    sizes: UnitSizes = field(default_factory=UnitSizes)
    on_stage: Callable[[str, float, int], None] | None = None
    """Called after every stage of a run: its name, the seconds it took, how many members it worked on."""
    unreleased: dict[str, Lease] = field(default_factory=dict)
    """Leases by name that could not be released (a full disk), until they can be."""
    stop: Stop = field(default_factory=Stop)
    """Set when the process is to end: no new unit of work begins then."""
    on_plan: Watch | None = None
    """Called with each plan in the unit that applies it (``reports.preview``)."""
    on_queued: Callable[[], None] | None = None
    """Called when batches were sent, so that the watcher checks them sooner."""

    @property
    def privacy(self) -> Privacy:
        """What becomes of contacts that CiviMail would not mail, by the settings."""
        return Privacy(self.settings.sync.on_opt_out) if self.settings.sync.respect_privacy else Privacy.IGNORE

    def audience(self, link: AudienceLink) -> Audience:
        """The linked audience as a sync with these settings treats it."""
        return link.audience(self.store.clock, privacy=self.privacy)
