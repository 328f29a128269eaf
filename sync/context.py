"""What every part of the sync is given: the store, the clients, and how it is set. No module holds these itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pluggy import PluginManager
from sqlalchemy import Connection

from civiapi.store.engine import Store
from sync.claims import Claim
from sync.mailchimp.client import MailchimpClient
from sync.reconcile import Plan
from sync.stopping import Stop

OnPlan = Callable[[Connection, Plan, str], None]


class ClientPool(Protocol):
    """Gives the one client of an account; whoever opened the pool closes it."""

    def client_for(self, api_key: str) -> MailchimpClient:
        """The client of the account with this key. Raises InvalidApiKey for a key without a data centre."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """The values of ``[sync]`` and ``[mailchimp]`` that a sync goes by; times in seconds."""

    overlap_seconds: int = 7200
    claim_seconds: float = 120
    heartbeat_seconds: float = 30
    fetch_parallel: int = 4
    respect_privacy: bool = True
    batch_size: int = 1000
    poll_seconds: float = 5.0
    brake_percent: float = 10.0
    brake_people: int = 25
    brake_additions: int = 0


@dataclass(frozen=True, slots=True)
class SyncContext:
    """The store, the clients and the settings of one process. `plugins` say what data to send (``data_sync``)."""

    store: Store
    clients: ClientPool
    options: SyncOptions = field(default_factory=SyncOptions)
    plugins: PluginManager | None = None
    holder: str = ""
    """Who we are in claims: one text for each process."""
    on_stage: Callable[[str, float, int], None] | None = None
    """Hears of every stage that a run did: its name, the seconds it took, how many members it worked on."""
    kept: dict[str, Claim] = field(default_factory=dict)
    """Claims by name that could not be given back (a full disk), until they can be."""
    stop: Stop = field(default_factory=Stop)
    """Asked when the process is to end: no new bit of work begins then."""
    on_plan: OnPlan | None = None
    """Hears of each plan, with its kind, in the unit that carries it out (``planning``)."""
    on_queued: Callable[[], None] | None = None
    """Called when batches were handed to Mailchimp, so that whoever watches them looks sooner."""
