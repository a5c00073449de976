"""Whether the addresses that sessions need can be reached: the looks, and what waits for them."""
