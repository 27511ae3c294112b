"""File formats that hold tensors, each read as data: nothing that a file asks to import or to call is run."""
