"""What a head is worth, how surely, and whether its probabilities can be believed."""
