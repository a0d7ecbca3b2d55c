"""What mergerisk does not know of, and finds by the entry points of the installed package."""
