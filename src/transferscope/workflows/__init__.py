"""The verbs that join several rooms, and the `Run` that they work on."""
