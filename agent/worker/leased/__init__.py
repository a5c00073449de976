"""What only the worker of a session of a fleet needs: it ends with the lease of its machine."""
