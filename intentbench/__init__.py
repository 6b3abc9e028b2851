"""A benchmark suite for recommenders that model user intent."""
