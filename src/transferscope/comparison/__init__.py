"""What the transfer changed: base against tuned, channel by channel, above a noise floor."""
