"""The parts of the contact's generator: what is drawn, and what is done."""
