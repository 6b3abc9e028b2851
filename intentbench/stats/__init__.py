"""Tests, corrections and intervals; loads no torch."""
