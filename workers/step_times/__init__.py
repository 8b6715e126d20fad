"""What steps cost on GPUs that were measured, one JSON file a GPU."""
