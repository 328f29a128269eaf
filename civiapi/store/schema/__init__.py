"""The tables: their shapes, the migrations that make them, their first rows, and the columns that a database has."""
