"""One HTML file for reports: its frame, its figures on paper, parallel coordinates."""
