"""A remote engine for a test: this package and one line in the catalog are all it takes."""
