"""Bottlenecks to classes: the heads, how one is trained, saved, scored and used."""
