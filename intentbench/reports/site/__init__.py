"""Leaderboards as a static site that needs no server and no network; see `docs/site.md`."""
