"""Sets of pictures: what one holds, how it is divided, batches of it, and the demo set.

What training does to its pictures is in `data.augmentation`, which loads torchvision.
"""
