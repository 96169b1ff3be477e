"""Images before a backbone sees them: an image folder as a table, one file to one array, its variants."""
