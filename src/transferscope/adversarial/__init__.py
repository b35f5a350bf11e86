"""Pictures that fool a network, and how much of it a network stands: attacks, corruptions, robustness.

Pictures are (N, C, H, W) in [0, 1] at the network's input size, and a perturbation's size is in those units,
whatever a network's normalisation.
"""
