"""Packs: workers that hold several sessions of an engine each."""
