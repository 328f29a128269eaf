"""Cache rows: the data of members as PHP text, changes merged into it, and what it says of a person."""
