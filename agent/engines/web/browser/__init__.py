"""The browser and its one page: found, started, called, ended."""
