"""A long run of a real server among good, slow, broken and hostile clients."""
