"""Figures as SVG text: `style` is what all share, then a file a subject."""
