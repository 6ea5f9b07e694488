"""A first look at somebody's folder: what is in it, and the classes.yaml and task that fit."""
