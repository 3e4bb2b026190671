"""Neurons beside the leaky integrate-and-fire one, each in a file: equation, source, naive truth, step."""
