"""Where in a picture a network finds its answer, and which methods of saying so deserve belief."""
