"""Trials at work: the pool over a bank, its snapshots, or one at a time by Keras."""
