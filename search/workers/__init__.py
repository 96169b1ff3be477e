"""Work on many machines: placed by Ray."""
