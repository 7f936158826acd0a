"""What an index is, how it grows, and how it is read and written."""
