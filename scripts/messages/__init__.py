"""Messages in both directions under kills, freezes and cuts: which are lost, which are doubled."""
