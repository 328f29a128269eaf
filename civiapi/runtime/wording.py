"""Numbers in sentences."""


def many(count: int, one: str, several: str = "") -> str:
    """``1 batch``, ``1,200 batches``; *several* where it is not *one* with an s."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
