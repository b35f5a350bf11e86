"""The classifier as a file for other programs: ONNX, a `torch.export` program, a folder for the Hub."""
