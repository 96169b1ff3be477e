"""The study: which heads are tried, how they are judged, and how the best one leaves."""
