"""Records to leaderboards; loads no torch."""
