"""Images, folders and addresses to classes, with heat maps."""
