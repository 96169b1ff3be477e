"""Who draws heads and who stops them; every trial asked and told once; which is best."""
