"""One trial, the grid, and what runs it."""
