"""What full-size models cost on one GPU, measured with random weights: `darkroom bench gpu`."""
