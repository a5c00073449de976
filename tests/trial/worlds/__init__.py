"""Days of a machine with drawn faults, in virtual time; each failure is repeated by its seed."""
