"""One pass for one instance: observe, judge, decide, act, record."""
