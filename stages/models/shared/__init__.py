"""Parts that all models share: layers, the model file, inference."""
