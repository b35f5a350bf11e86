"""What a frozen network makes of pictures, computed once: caches, the linear probe, exemplars.

Everything below the freeze boundary is a function of the weights and the picture alone, so it is
stored under the hash of both and never computed again: for another seed, another split or another
strategy the features are found.
"""
