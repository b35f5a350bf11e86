"""Grids of pictures with words: activations, renders, ideal pictures, samples."""
