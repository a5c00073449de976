"""Sessions as archives: packed, sealed for one agent, unpacked within bounds."""
