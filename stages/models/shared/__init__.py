"""Code that all models share: layers, model files and their checks, inference."""
