"""Private fast copies of networks, their gradients, precision and memory.

Everything here takes networks and example tensors. Nothing is imported with the room itself: the command
line calls `memory` before it loads torch.
"""
