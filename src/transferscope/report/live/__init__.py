"""The pages that only a running server has: how far the work is, and a picture to try."""
