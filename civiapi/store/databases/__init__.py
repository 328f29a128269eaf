"""What differs between SQLite and MariaDB: the two stores, their statements, and writing many rows."""
