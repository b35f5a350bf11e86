"""Feature visualization: what a channel, a neuron or a class wants to see.

Kept apart, as in lucid: objectives (what to maximise), the canvas (what is optimized), movement (how
the picture is moved meanwhile) and the engine (which climbs).
"""
