"""What the sandbox's account and its contacts write to each other, on WhatsApp's side."""
