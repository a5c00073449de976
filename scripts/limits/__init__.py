"""What must hold at the limits: many messages at once, many that wait, a consumer that is away."""
