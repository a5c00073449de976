"""A web session's folder: the profile of the browser, and the notes of the engine."""
