"""`wa-agent backends`, and the drop-in that lets a backend's worker reach files of its server."""
