"""What the commands print: tables, lists, progress, the frame of `top`."""
