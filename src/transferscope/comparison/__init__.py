"""Two networks compared channel by channel: witnesses, each with its null; drawings; geometry."""
