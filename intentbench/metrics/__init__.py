"""Ranks, and the formulas on them."""
