"""The parts of the backend's generator: what is drawn, what is done, what must stay true."""
