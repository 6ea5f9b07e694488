"""Published data sets and folders of images, each read from the tree it comes in."""
