"""Images through a frozen backbone into a feature store."""
