"""What a call may cost: its place on the event loop, calls at once, and the size of what is read and answered."""
