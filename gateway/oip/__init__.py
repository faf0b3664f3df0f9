"""What the Open Inference Protocol says whichever way it comes: tensors' bytes, parameters, models. Pure."""
