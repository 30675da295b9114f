"""One module for each change of the tables, in order. What was released is not changed."""
