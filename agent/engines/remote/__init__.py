"""What every backend on somebody's server needs: asking it over HTTP, and saying how it is."""
