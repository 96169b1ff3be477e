"""The bank: many heads in one set of arrays, trained by one compiled program (docs/bank.md)."""
