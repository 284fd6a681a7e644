"""How close to the truth."""
