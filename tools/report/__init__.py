"""`regbundles report`: one page over the results of many registrations, and a table beside it."""
