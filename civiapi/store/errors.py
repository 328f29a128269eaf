"""The errors of the store. No driver exception leaves ``civiapi.store``.

StoreError
├── StoreUnusable        the database cannot be opened or written: missing, locked, read-only, full, corrupt
├── SchemaTooNew         a later civiapi wrote this database
├── NotAdopted           CiviCRM made this database, and nobody has let civiapi take it over
├── StoreBusy            a lock or a deadlock outlasted every retry; the unit wrote nothing
├── CallTimedOut         the call's time limit passed; the unit was interrupted and wrote nothing
└── ConstraintBroken     a row breaks a rule of its table; the unit wrote nothing
    ├── NotUnique
    └── NoSuchReference  a foreign key refers to no row, or a row is still referred to
"""


class StoreError(Exception):
    """A unit of work failed, and nothing of it was written."""


class StoreUnusable(StoreError):
    """The database cannot be opened or written."""


class SchemaTooNew(StoreError):
    """A later version of civiapi has made or upgraded the database; it was not changed."""


class NotAdopted(StoreError):
    """The database is CiviCRM's and was not adopted, or was released; nothing was written."""

    def __init__(self) -> None:
        super().__init__(
            "This is the database of a CiviCRM that civiapi has not taken over; nothing was written. Run civiapi adopt "
            "--check, which only reports, then civiapi adopt."
        )


class StoreBusy(StoreError):
    """The database stayed locked until all retries were used up."""


class ConstraintBroken(StoreError):
    """A row breaks a rule of its *table*, empty where that is not known; the text, which callers of the API get, does
    not name it."""

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class NotUnique(ConstraintBroken):
    """Another row already has these values."""


class NoSuchReference(ConstraintBroken):
    """A foreign key refers to a row that does not exist."""


class CallTimedOut(StoreError):
    """A unit took longer than its call may; it was interrupted and rolled back."""
