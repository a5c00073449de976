"""Whether the addresses that sessions need can be reached: the looks, and who waits for them."""
