"""Commands that show: events, health, reasons, `top` and `why`."""
