"""`csiemu dataset`: channels to data files, and a look at them."""
