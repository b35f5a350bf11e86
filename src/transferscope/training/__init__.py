"""Fine-tuning behind a freeze boundary: options, recipe, loop, checkpoints; and what is measured before.

Nothing is imported here, so that the command line reads the options without loading torch.
"""
