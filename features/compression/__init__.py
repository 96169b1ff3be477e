"""Stores of fewer channels: the strongest directions of a backbone's channels, and what a store holds in them."""
