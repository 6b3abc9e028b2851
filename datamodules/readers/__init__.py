"""One reader a format, to one event table."""
