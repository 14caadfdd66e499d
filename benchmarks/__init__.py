"""Side-by-side measurements of asyncflask and its peers; see ``README.md``."""
