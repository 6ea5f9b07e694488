"""The only package that imports ray: trials on a cluster, driven by the scheduler."""
