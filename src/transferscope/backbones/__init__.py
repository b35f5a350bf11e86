"""Pretrained networks and the `Classifier` that owns one."""
