"""Takes back what a run did, as far as nobody has changed it since: facts, plans (pure), then the writes."""
