"""What a study leaves on disk: the journal or another storage, heads, the summary."""
