"""What can go wrong in the store, in our own words. No driver exception leaves ``civiapi.store``.

StoreError
├── StoreUnusable        the database cannot be opened or written: missing, locked, read-only, full, corrupt
├── SchemaTooNew         a later civiapi wrote this database
├── StoreBusy            a lock or a deadlock outlasted every retry; the unit wrote nothing
└── ConstraintBroken     a row that another rule forbids; the unit wrote nothing
    ├── NotUnique
    └── NoSuchReference  a foreign key points at no row, or a row is still pointed at
"""


class StoreError(Exception):
    """The store could not do what was asked; nothing of the unit of work was written."""


class StoreUnusable(StoreError):
    """The database cannot be opened or written."""


class SchemaTooNew(StoreError):
    """The database was made by a later version of civiapi; this one does not touch it."""


class StoreBusy(StoreError):
    """The database stayed locked for longer than we wait."""


class ConstraintBroken(StoreError):
    """A row breaks a rule of its table."""


class NotUnique(ConstraintBroken):
    """Another row already has these values."""


class NoSuchReference(ConstraintBroken):
    """A foreign key points at a row that is not there."""
