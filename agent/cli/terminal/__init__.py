"""The output of the commands: tables, lists, progress, the frame of `top`."""
