"""The handlers of the routes, a module for each subject."""
