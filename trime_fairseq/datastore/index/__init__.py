"""What an index is, and how it is read and written."""
