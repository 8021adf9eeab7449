"""A trained model as everybody uses it: loaded by format, fed with a matrix, measured."""
