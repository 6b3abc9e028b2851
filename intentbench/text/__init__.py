"""Text intents: what users look for and items offer, in words, as vectors (`docs/text.md`)."""
