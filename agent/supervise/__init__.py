"""The shell around the core: observe, act, record."""
