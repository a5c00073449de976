"""Files that messages brought: loaded by the session's worker, checked, kept within a quota."""
