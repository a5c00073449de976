"""The program on an emulated machine: `scripts/chaos vm`."""
