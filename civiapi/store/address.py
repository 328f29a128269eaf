"""The address of a database, as the settings have it."""

SQLITE = "sqlite:///"
SERVERS = frozenset({"mysql", "mariadb"})
DRIVER = "mysql+asyncmy"
OPTIONS = frozenset({"unix_socket", "ssl_ca", "ssl_cert", "ssl_key"})
FOR_PHP = ("new_link",)  # in the address that a CiviCRM's civicrm.settings.php has


def server_address(text: str) -> str:
    """The address of a MariaDB database, for the driver. Raises ``ValueError``, after "url", for one that is none."""
    from sqlalchemy import make_url  # a tenth of a second, which reading the settings alone does not need
    from sqlalchemy.exc import ArgumentError

    form = "mysql://user:password@host/name"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"must be {SQLITE}path or {form}") from None
    if url.get_backend_name() not in SERVERS or url.drivername.partition("+")[2] not in ("", "asyncmy"):
        raise ValueError(f"must begin with {SQLITE} or mysql://")
    if not url.database:
        raise ValueError(f"names no database; it must be {form}")
    url = url.set(drivername=DRIVER).difference_update_query(FOR_PHP)
    if unknown := sorted(url.query.keys() - OPTIONS):
        raise ValueError(f"has the option {unknown[0]}, and takes {', '.join(sorted(OPTIONS))} only")
    return url.render_as_string(hide_password=False)


def trouble(text: str) -> str:
    """What is wrong with an address, after "url"; ``""`` for a good one."""
    if text.startswith(SQLITE):
        return "" if text != SQLITE else f"names no file; it must be {SQLITE}path"
    try:
        server_address(text)
    except ValueError as error:
        return str(error)
    return ""
